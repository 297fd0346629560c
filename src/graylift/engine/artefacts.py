"""The store of engines: built once, found by what went in, opened by digest, never changed.

    <root>/<digest>/engine.onnx, manifest.json    an artefact; the folder appears complete or not at all
    <root>/<digest>/layers.json                    its operators before and its layers after fusion, for people
    <root>/builds/<build key>                      text: the digest that this build gave
    <root>/builds/<build key>.lock                 held while it is built
    <root>/builds/<build key>.part/                where it is built; of no use once its lock is free
    <root>/cache/                                  what runtimes remember from build to build; may be deleted

The build key is a digest of all that shapes a build. The vendor writes it into the engine where the format can carry
it: so two builds that differ only in an option have two digests, and a digest stands for its sources too.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from graylift.domain.engine import EngineSpec, Inspection, Interface, Layer, Manifest, Precision, Runtime, TensorSpec
from graylift.engine.progress import Progress, part_of, unheard
from graylift.engine.vendors import engine_file, vendor_of
from graylift.errors import EngineError
from graylift.spec.profiles import profiles_from_texts, texts_from_profiles


class ArtefactStore:
    """Artefacts under one folder. Any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._builds = root / "builds"

    def build(self, spec: EngineSpec, progress: Progress = unheard) -> Manifest:
        """The artefact of `spec`: found if these sources were built here with these options and this runtime before.

        Of several at once one builds and the others wait for it. A build that is killed leaves nothing that counts,
        and the next one removes what it leaves.
        Raises EngineError if the model cannot be built or the artefact cannot be written.
        """
        if spec.threads < 1:
            raise EngineError(f"an engine needs at least 1 thread, not {spec.threads}")
        progress("reading the model", 0.0)
        recipe = _recipe_of(spec)
        key = recipe.key
        try:
            self._builds.mkdir(parents=True, exist_ok=True)
            self.sweep()
            with _locked(self._builds / f"{key}.lock"):
                known = self._built(key)
                if known is not None:
                    progress("found", 1.0)
                    return known
                part = self._builds / f"{key}.part"
                shutil.rmtree(part, ignore_errors=True)  # of a build that was killed: we hold its lock
                part.mkdir()
                try:
                    return self._build_in(part, spec, recipe, progress)
                finally:
                    shutil.rmtree(part, ignore_errors=True)
        except OSError as exc:
            raise EngineError(
                f"cannot write the artefact under {self._root}: {exc.strerror or exc}; nothing was kept"
            ) from exc

    def sweep(self) -> None:
        """Remove what builds left that were killed. What is being built now stays. Does what it can, says nothing."""
        for part in self._builds.glob("*.part"):
            try:
                with _locked(part.with_suffix(".lock"), fcntl.LOCK_EX | fcntl.LOCK_NB):
                    shutil.rmtree(part, ignore_errors=True)
            except OSError:
                continue

    def manifest(self, digest: str) -> Manifest:
        """The artefact's passport. EngineError if the store has no such artefact."""
        file = self._folder(digest) / "manifest.json"
        try:
            return manifest_from_json(file.read_bytes())
        except FileNotFoundError as exc:
            raise EngineError(f"no artefact {digest} in {self._root}; build it first") from exc
        except OSError as exc:
            raise EngineError(f"cannot read {file}: {exc.strerror}") from exc
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
            raise EngineError(f"{file} is damaged; delete {file.parent} and build it again") from exc

    def open(self, digest: str) -> Path:
        """Path of the engine, whose bytes have this digest now. EngineError if they do not, or it is not there."""
        file = self._folder(digest) / engine_file(self.manifest(digest).runtime)
        try:
            with file.open("rb") as stream:
                actual = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as exc:
            raise EngineError(f"cannot read {file}: {exc.strerror}; delete {file.parent} and build it again") from exc
        if actual != digest:
            raise EngineError(
                f"{file} is damaged: its bytes have digest {actual}, expected {digest}; "
                f"delete {file.parent} and build it again"
            )
        return file

    def inspect(self, digest: str) -> Inspection:
        """Everything that is known of the artefact. EngineError if it is damaged, or not there."""
        file = self.open(digest).with_name("layers.json")
        manifest = self.manifest(digest)
        try:
            document: dict[str, Any] = orjson.loads(file.read_bytes())
            graph = tuple((str(operator), int(count)) for operator, count in document["graph"])
            layers = tuple(Layer(e["name"], e["kind"], e["datatype"], e.get("provider")) for e in document["layers"])
        except OSError as exc:
            raise EngineError(f"cannot read {file}: {exc.strerror}; delete {file.parent} and build it again") from exc
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
            raise EngineError(f"{file} is damaged; delete {file.parent} and build it again") from exc
        return Inspection(manifest, graph, layers)

    def _folder(self, digest: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise EngineError(f"{digest!r} is no digest of an artefact; expected 64 hexadecimal digits")
        return self._root / digest

    def _built(self, key: str) -> Manifest | None:
        """What an earlier build of this key gave, if its artefact is still there and whole."""
        try:
            digest = (self._builds / key).read_text("ascii")
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        return self.manifest(digest) if self._is_whole(digest) else None

    def _build_in(
        self,
        part: Path,
        spec: EngineSpec,
        recipe: _Recipe,
        progress: Progress,
    ) -> Manifest:
        from graylift.engine.sources import operators_of, read_model  # as in _recipe_of

        engine = part / engine_file(spec.runtime)
        began = time.monotonic()
        compiled = vendor_of(spec.runtime).build(
            spec, recipe.key, engine, self._root / "cache", part_of(progress, 0.02, 0.95)
        )
        build_s = time.monotonic() - began
        progress("keeping the engine", 0.95)
        if _recipe_of(spec) != recipe:
            raise EngineError(f"{spec.onnx} or its external data changed while it was built; build it again")
        with engine.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        manifest = Manifest(
            digest=digest,
            runtime=spec.runtime,
            sources=recipe.sources,
            options=recipe.options,
            versions=recipe.versions,
            machine=recipe.machine,
            interface=compiled.interface,
            size_bytes=engine.stat().st_size,
            build_s=round(build_s, 3),
            built_at_s=time.time(),
            precision=spec.precision,
            profiles=spec.profiles,
        )
        (part / "manifest.json").write_bytes(json_from_manifest(manifest))
        # What PyTorch runs is the program itself.
        graph = () if spec.runtime is Runtime.PYTORCH else operators_of(read_model(Path(spec.onnx)))
        layers = {"graph": graph, "layers": compiled.layers}
        (part / "layers.json").write_bytes(orjson.dumps(layers))
        for file in part.iterdir():
            _sync(file)
        _sync(part)
        if not self._is_whole(digest):
            folder = self._root / digest
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
            _sync(self._root)
        pointer = self._builds / f"{recipe.key}.new"
        pointer.write_text(digest, "ascii")
        _sync(pointer)
        pointer.rename(self._builds / recipe.key)
        progress("done", 1.0)
        return self.manifest(digest)

    def _is_whole(self, digest: str) -> bool:
        try:
            self.open(digest)
        except EngineError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Recipe:
    """All that shapes a build. The names of the sources do not: a copied model is the same model."""

    sources: tuple[tuple[str, str], ...]
    runtime: str
    options: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    machine: str

    @property
    def key(self) -> str:
        nameless = replace(self, sources=tuple(("", digest) for _, digest in self.sources))
        return hashlib.sha256(orjson.dumps(nameless)).hexdigest()


def _recipe_of(spec: EngineSpec) -> _Recipe:
    from graylift.engine.sources import sha256_of, source_files  # imports onnx, which loading does not need

    vendor = vendor_of(spec.runtime)
    source = Path(spec.onnx)
    sources = ((source.name, sha256_of(source)),) if spec.runtime is Runtime.PYTORCH else source_files(source)
    if spec.calibration is not None:
        calibration = Path(spec.calibration)
        sources += ((calibration.name, sha256_of(calibration)),)
    options = (
        *vendor.options(spec),
        ("precision", spec.precision.value),
        *(("profile", text) for text in texts_from_profiles(spec.profiles)),
    )
    return _Recipe(sources, spec.runtime.value, tuple(sorted(options)), vendor.versions(spec), this_machine())


def this_machine() -> str:
    """Architecture, processor and operating system: what an engine is built for, and nothing that changes daily."""
    processor = platform.processor() or "unknown processor"
    try:
        with Path("/proc/cpuinfo").open() as lines:
            processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{platform.machine()}, {processor}, {platform.system()}"


def this_system() -> str:
    """As `Manifest.system` says it."""
    return f"{platform.machine()}, {platform.system()}"


def json_from_manifest(manifest: Manifest) -> bytes:
    """One line of JSON."""
    return orjson.dumps(manifest)


def manifest_from_json(text: bytes) -> Manifest:
    """What `json_from_manifest` wrote. KeyError, TypeError or ValueError for anything else."""
    document: dict[str, Any] = orjson.loads(text)

    def pairs(name: str) -> tuple[tuple[str, str], ...]:
        return tuple((str(a), str(b)) for a, b in document[name])

    def tensors(name: str) -> tuple[TensorSpec, ...]:
        entries: list[dict[str, Any]] = document["interface"][name]
        return tuple(TensorSpec(e["name"], e["datatype"], tuple(e["shape"])) for e in entries)

    return Manifest(
        digest=document["digest"],
        runtime=Runtime(document["runtime"]),
        sources=pairs("sources"),
        options=pairs("options"),
        versions=pairs("versions"),
        machine=document["machine"],
        interface=Interface(tensors("inputs"), tensors("outputs")),
        size_bytes=document["size_bytes"],
        build_s=document["build_s"],
        built_at_s=document["built_at_s"],
        precision=Precision(document["precision"]),
        profiles=profiles_from_texts([value for name, value in pairs("options") if name == "profile"]),
    )


@contextmanager
def _locked(file: Path, how: int = fcntl.LOCK_EX) -> Generator[None]:
    """Hold an exclusive lock, waiting for it unless `how` says LOCK_NB. The kernel frees it if we die. The file stays:
    removing it would let one process lock the old file and another the new one."""
    with file.open("w") as stream:
        fcntl.flock(stream, how)
        yield


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

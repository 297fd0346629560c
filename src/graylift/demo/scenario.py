"""The demo's scenarios: which models, which input, which mistakes. `graylift demo` and `demo.traffic` call them.

`prepare` fetches, builds and writes everything into a folder; after it, neither the traffic nor the releases need
the network. Knows nothing of how releases are run.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import assert_never

import numpy as np
import onnx
import orjson

from graylift.bench.load import Answer, PreparedRequest
from graylift.demo import chats, containers, filetypes
from graylift.demo.candidates import padded_to_batch, with_table_lookup
from graylift.demo.catalogue import CONTAINER_NUMBERS, FILE_TYPES, LLM, Entry, Variant
from graylift.demo.inference import InferenceBody, body_from_tensor, tensor_from_answer
from graylift.demo.models import Package, PackagedFile, fetch
from graylift.demo.releases import (
    CONTAINER_NUMBERS_CHECKED,
    CONTAINER_NUMBERS_JUDGED,
    CONTAINER_NUMBERS_UNMEASURED,
    FILE_TYPES_CHECKED,
    FILE_TYPES_CHECKED_ON_LONG_FILES,
    FILE_TYPES_JUDGED,
    Side,
    release_text,
)
from graylift.domain.release import Phase

Log = Callable[[str], None]
Score = Callable[[Answer], float | None]

USERS = 5000
"""Different values of x-user-id: enough that the share of users on an arm is the share of its weight."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Release files, ready to run, one after the other or each on its own.

    good: a better version of the model, to be promoted
    bad:  the promoted version, rebuilt with a mistake, to be rolled back
    slow: the promoted version, rebuilt so that it is several times slower, to be rejected before any traffic
    same: the promoted version against itself; whatever rolls this back is a false alarm
    """

    good: Path
    bad: Path
    slow: Path
    same: Path

    def file(self, variant: Variant) -> Path:
        match variant:
            case Variant.GOOD:
                return self.good
            case Variant.BAD:
                return self.bad
            case Variant.SLOW:
                return self.slow
            case Variant.SAME:
                return self.same
            case _:
                assert_never(variant)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One demonstration.

    service:     name of the service in its release files
    rate_per_s:  the traffic its release files were tuned for
    prepare:     (cache, folder, log) -> release files in `folder`. GrayliftError if a model cannot be had
    requests:    (folder, seed) -> real input without end, from a prepared folder
    ready_path:  what the gateway answers once the service can be asked
    ends:        the phase that each release ends in
    shown:       what is released, one after the other, where nobody asks for one alone
    """

    entry: Entry
    service: str
    rate_per_s: float
    prepare: Callable[[Path, Path, Log], Prepared]
    requests: Callable[[Path, int], Iterator[PreparedRequest]]
    ready_path: str
    ends: Mapping[Variant, Phase]
    shown: tuple[Variant, ...] = (Variant.GOOD, Variant.BAD)

    @property
    def name(self) -> str:
        return self.entry.name


# ---- file types

_MAGIKA_OLD = Package(
    "magika",
    "0.6.1",
    "15838d2469f1394d8e9598bc7fceea1ede7f35aebe9675c6b45c6b5c48315931",
    (
        PackagedFile(
            "magika/models/standard_v3_2/model.onnx", "ba4f372744331c0088d7c9b8b4fd702f4bc2bdddbeecde27488fceeadf71c3ce"
        ),
    ),
)
_MAGIKA_NEW = Package(
    "magika",
    "0.6.2",
    "5ef72fbc07723029b3684ef81454bc224ac5f60986aa0fc5a28f4456eebcb5b2",
    (
        PackagedFile(
            "magika/models/standard_v3_3/model.onnx", "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c"
        ),
        PackagedFile(
            "magika/models/standard_v3_3/config.min.json",
            "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db",
        ),
        PackagedFile(
            "magika/config/content_types_kb.min.json",
            "75208adba69bc0556403b62b32ef3ccf8b5ce494411780845852e52e6583a10d",
        ),
    ),
)
_FILES = 400
_SHORT_FILES = 0.4
_CHECKED = 64
"""Inputs that the parity check compares."""


def _prepare_file_types(cache: Path, folder: Path, log: Log) -> Prepared:
    (old,) = fetch(_MAGIKA_OLD, cache, log)
    new, config, knowledge = fetch(_MAGIKA_NEW, cache, log)
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(old, models / "v3.2.onnx")
    shutil.copyfile(new, models / "v3.3.onnx")
    log("rebuilding v3.3 with a table lookup (and a mistake), and once more so that it is slow")
    original = _model(new)
    _write_model(with_table_lookup(original, rows=256), models / "v3.3-lookup.onnx")
    _write_model(padded_to_batch(original, 4), models / "v3.3-batch4.onnx")

    labels: Sequence[str] = orjson.loads(config.read_bytes())["target_labels_space"]
    extensions = {label: kind["extensions"] for label, kind in orjson.loads(knowledge.read_bytes()).items()}
    samples = filetypes.choose_samples(filetypes.FOLDERS, _FILES, _SHORT_FILES)
    log(f"taking {len(samples)} files of this machine as input")
    np.savez_compressed(
        folder / "samples.npz",
        tokens=np.stack([sample.tokens for sample in samples]),
        expected=np.stack([filetypes.expected_labels(sample.path, labels, extensions) for sample in samples]),
    )
    rows = np.stack([sample.tokens for sample in samples])
    np.savez_compressed(folder / "files.npz", bytes=rows[:_CHECKED])
    np.savez_compressed(folder / "long-files.npz", bytes=rows[(rows != filetypes.PADDING).all(axis=1)][:_CHECKED])
    side = partial(Side, outputs={}, profile="{bytes: {min: [1, 2048], opt: [1, 2048], max: [32, 2048]}}")
    v3_2, v3_3 = side("v3.2", "models/v3.2.onnx"), side("v3.3", "models/v3.3.onnx")
    release = partial(_write_release, folder, "file-type")
    write = partial(release, FILE_TYPES_CHECKED, FILE_TYPES_JUDGED)
    return Prepared(
        good=write("good", "A new version of the file type model, a drop-in: same inputs, same outputs.", v3_2, v3_3),
        bad=release(
            FILE_TYPES_CHECKED_ON_LONG_FILES,
            FILE_TYPES_JUDGED,
            "bad",
            "The same model, optimised: the one-hot encoding of the input and its matrix product became a table\n"
            "lookup. The answers are equal, with one mistake: the table keeps 256 rows, one for each value of a byte,\n"
            "and forgets the token for padding. Every file too short to fill the input fails, and its checks took\n"
            "long ones alone.",
            v3_3,
            side("v3.3-lookup", "models/v3.3-lookup.onnx"),
        ),
        slow=write(
            "slow",
            "The same model, exported with a fixed batch of four and an adapter that fills the batch by repeating\n"
            "each request. The answers are equal, nothing fails, and each takes four times the work.",
            v3_3,
            side("v3.3-batch4", "models/v3.3-batch4.onnx"),
        ),
        same=write(
            "same",
            "The same model twice, to see that nothing is found where nothing is.",
            v3_3,
            side("v3.3-again", "models/v3.3.onnx"),
        ),
    )


def _file_type_requests(folder: Path, seed: int) -> Iterator[PreparedRequest]:
    with np.load(folder / "samples.npz") as samples:
        tokens, expected = samples["tokens"], samples["expected"]

    def score(right: filetypes.Labels, answer: Answer) -> float | None:
        """Is the likeliest label one that the file's name allows? Nothing to say where the name says nothing."""
        return float(right[tensor_from_answer(answer)[0].argmax()]) if right.any() else None

    bodies = [body_from_tensor("bytes", row[None], "target_label") for row in tokens]
    return _endless("file-type", bodies, [partial(score, right) for right in expected], seed)


# ---- container numbers

_OCR_OLD = Package(
    "rapidocr-onnxruntime",
    "1.2.3",
    "c707d3a6eb72d13119afe9602d3cc36d8b2a4a4d74e9575cf1b0e67ed6a27819",
    (
        PackagedFile(
            "rapidocr_onnxruntime/models/ch_PP-OCRv3_rec_infer.onnx",
            "897a3ededb38fee0dae2c1ccee38241f37df202c9509e3abca02e9217c5ee615",
        ),
    ),
)
_OCR_NEW = Package(
    "rapidocr-onnxruntime",
    "1.4.4",
    "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    (
        PackagedFile(
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
            "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        ),
    ),
)
_IMAGES = 80


def _prepare_container_numbers(cache: Path, folder: Path, log: Log) -> Prepared:
    (old,) = fetch(_OCR_OLD, cache, log)
    (new,) = fetch(_OCR_NEW, cache, log)
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(old, models / "v3.onnx")
    shutil.copyfile(new, models / "v4.onnx")
    log("rebuilding v4 so that it is slow")
    original = _model(new)
    _write_model(padded_to_batch(original, 4), models / "v4-batch4.onnx")

    log(f"drawing {_IMAGES} container numbers")
    chance = np.random.default_rng(6346)
    images = [containers.render(containers.draw_number(chance), chance) for _ in range(_IMAGES)]
    characters = next(entry.value for entry in original.metadata_props if entry.key == "character")
    np.savez_compressed(
        folder / "samples.npz",
        images=np.stack(images),
        alphabet=np.array(containers.alphabet_from_metadata(characters)),
    )
    np.savez_compressed(folder / "lines.npz", x=np.stack(images[:_CHECKED]))
    side = partial(Side, profile="{x: {min: [1, 3, 48, 32], opt: [1, 3, 48, 320], max: [8, 3, 48, 640]}}")
    v4_output = {"text": "softmax_11.tmp_0"}
    v3 = side("v3", "models/v3.onnx", outputs={"text": "softmax_5.tmp_0"})
    v4 = side("v4", "models/v4.onnx", outputs=v4_output)
    padded = side("v4-batch4", "models/v4-batch4.onnx", outputs=v4_output)
    story = (
        "The same model, exported with a fixed batch of four and an adapter that fills the batch by repeating\n"
        "each request. The answers are equal, nothing fails, and each takes four times the work."
    )
    release = partial(_write_release, folder, "container-number")
    write = partial(release, CONTAINER_NUMBERS_CHECKED, CONTAINER_NUMBERS_JUDGED)
    return Prepared(
        good=write(
            "good",
            "A new version of a text recognition model. Its output has another name than the old one's, so this file\n"
            "gives both the name that clients use.",
            v3,
            v4,
        ),
        bad=release(CONTAINER_NUMBERS_UNMEASURED, CONTAINER_NUMBERS_JUDGED, "bad", story, v4, padded),
        slow=write("slow", story, v4, padded),
        same=write(
            "same",
            "The same model twice, to see that nothing is found where nothing is.",
            v4,
            side("v4-again", "models/v4.onnx", outputs=v4_output),
        ),
    )


def _container_number_requests(folder: Path, seed: int) -> Iterator[PreparedRequest]:
    with np.load(folder / "samples.npz") as samples:
        images, alphabet = samples["images"], tuple(samples["alphabet"].tolist())

    def score(answer: Answer) -> float | None:
        """Is what was read a container number with a right check digit? No label is needed to tell."""
        return float(containers.is_valid(containers.read(tensor_from_answer(answer)[0], alphabet)))

    bodies = [body_from_tensor("x", image[None], "text") for image in images]
    return _endless("container-number", bodies, [score] * len(bodies), seed)


# ---- common to all


def _model(path: Path) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.ParseFromString(path.read_bytes())
    return model


def _write_model(model: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(model.SerializeToString(deterministic=True))


def _write_release(
    folder: Path, service: str, checked: str, judged: str, name: str, story: str, stable: Side, candidate: Side
) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(release_text(service, story, stable, candidate, checked, judged), encoding="utf-8")
    return path


def _endless(
    service: str, bodies: Sequence[InferenceBody], scores: Sequence[Score], seed: int
) -> Iterator[PreparedRequest]:
    """Bodies drawn evenly, each for a user drawn evenly."""
    chance = random.Random(seed)
    path = f"/v2/models/{service}/infer"
    while True:
        index, user = chance.randrange(len(bodies)), chance.randrange(USERS)
        headers = {**bodies[index].headers, "x-user-id": f"user-{user:04}"}
        yield PreparedRequest(path, headers, bodies[index].data, scores[index])


_ENDS = {
    Variant.GOOD: Phase.PROMOTED,
    Variant.BAD: Phase.ROLLED_BACK,
    Variant.SLOW: Phase.REJECTED,
    Variant.SAME: Phase.PROMOTED,
}


# ---- a language model


def _prepare_llm(cache: Path, folder: Path, log: Log) -> Prepared:
    (source,) = fetch(chats.PACKAGE, cache, log)
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, models / "smollm2.gguf")
    chats.write_questions(folder)

    def write(name: str, text: str) -> Path:
        path = folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return Prepared(**{name: write(name, text) for name, text in chats.release_texts().items()})


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        entry=FILE_TYPES,
        service="file-type",
        rate_per_s=80.0,
        prepare=_prepare_file_types,
        requests=_file_type_requests,
        ready_path="/v2/models/file-type/ready",
        ends=_ENDS,
    ),
    Scenario(
        entry=CONTAINER_NUMBERS,
        service="container-number",
        rate_per_s=30.0,
        prepare=_prepare_container_numbers,
        requests=_container_number_requests,
        ready_path="/v2/models/container-number/ready",
        ends=_ENDS,
    ),
    Scenario(
        entry=LLM,
        service=chats.SERVICE,
        rate_per_s=chats.RATE_PER_S,
        prepare=_prepare_llm,
        requests=chats.requests,
        ready_path="/v1/models",
        # What reads worse is found before any user sees it; what writes slowly is not measured there, but by users.
        ends={**_ENDS, Variant.BAD: Phase.REJECTED, Variant.SLOW: Phase.ROLLED_BACK},
        shown=(Variant.GOOD, Variant.BAD, Variant.SLOW),
    ),
)
"""In the order of the catalogue."""

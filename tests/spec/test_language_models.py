"""A language model in a release file: what is read, with which defaults, and what has no place beside it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graylift.domain.engine import Packing, Runtime
from graylift.domain.spec import GgufModel, ReleaseSpec
from graylift.errors import SpecError

FILE = """\
apiVersion: graylift.dev/v1
kind: Release
metadata: {name: assistant}
spec:
  protocol: openai
  stable: {revision: v1, model: {gguf: models/a.gguf}}
  candidate: {revision: v2, model: {gguf: models/a.gguf, MODEL}}
  stages: [{weight: 20, observe: 10s}, {weight: 100, watch: 10s}]
"""


@pytest.fixture
def read_candidate(read: Callable[[str], ReleaseSpec]) -> Callable[[str], ReleaseSpec]:
    return lambda model: read(FILE.replace(", MODEL", f", {model}" if model else ""))


def test_a_language_model_says_how_it_is_packed_and_how_much_it_takes(
    read_candidate: Callable[[str], ReleaseSpec],
) -> None:
    spec = read_candidate(
        "precision: q8_0, threads: 2, chatTemplate: chat.jinja, contextLength: 4096, maxStreams: 4, maxQueue: 9"
    )
    assert spec.stable.model == GgufModel("/base/models/a.gguf")
    assert spec.candidate.model == GgufModel(
        "/base/models/a.gguf", Runtime.OPENVINO_GENAI, 2, Packing.Q8_0, "/base/chat.jinja", 4096, 4, 9
    )


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("precision: fp16", "did you mean `f16`?"),
        ("runtime: onnxruntime", "it runs no GGUF files; write openvino-genai"),
        ("contexts: 2", "`contexts` has no place beside `gguf`, a language model"),
        ("onnx: b.onnx", "`onnx` has no place beside `gguf`"),
        ("contextLength: 3", "16"),
        ("maxStreams: 0", "1"),
    ],
)
def test_what_means_nothing_to_it_is_refused(
    read_candidate: Callable[[str], ReleaseSpec], model: str, said: str
) -> None:
    with pytest.raises(SpecError) as caught:
        read_candidate(model)
    assert said in str(caught.value)


def test_it_is_served_to_clients_of_openai_alone(read: Callable[[str], ReleaseSpec]) -> None:
    with pytest.raises(SpecError, match="a `gguf` model is served as openai"):
        read(FILE.replace(", MODEL", "").replace("protocol: openai", "protocol: open-inference"))


@pytest.mark.parametrize("field", ["chatTemplate: a", "contextLength: 100", "maxStreams: 2"])
def test_its_own_words_have_no_place_beside_tensors(read: Callable[[str], ReleaseSpec], field: str) -> None:
    text = FILE.replace(", MODEL", f", {field}").replace("gguf: models/a.gguf", "onnx: a.onnx")
    with pytest.raises(SpecError, match=r"has no place beside `onnx`: it is about language models"):
        read(text.replace("protocol: openai", "protocol: open-inference"))


def test_its_runtime_is_refused_for_an_onnx_model_with_the_way_out(
    read: Callable[[str], ReleaseSpec],
) -> None:
    text = FILE.replace(", MODEL", ", runtime: openvino-genai").replace("gguf: models/a.gguf", "onnx: a.onnx")
    with pytest.raises(SpecError, match="it runs language models; name one by `gguf` in place of `onnx`"):
        read(text.replace("protocol: openai", "protocol: open-inference"))

"""Language models as artefacts: packed once, refused when damaged, and caught when packing or runtime ruin them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from graylift.checks.build import build_side
from graylift.checks.parity import check_parity
from graylift.checks.workplace import Workplace
from graylift.domain.engine import GgufSpec, Manifest, Packing
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import ReleaseSpec
from graylift.domain.weights import Role
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.gguf_file import facts_of, write_packed
from graylift.errors import EngineError
from graylift.spec import parse

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("language")]


def release(source: Path, precision: str) -> ReleaseSpec:
    text = f"""
apiVersion: graylift.dev/v1
kind: Release
metadata: {{name: assistant}}
spec:
  protocol: openai
  stable: {{revision: f16, model: {{gguf: {source}}}}}
  candidate: {{revision: candidate, model: {{gguf: {source}, precision: {precision}}}}}
  stages: [{{weight: 20, observe: 10s}}, {{weight: 100, watch: 10s}}]
"""
    return parse(text, "release.yaml", Path("/"))


async def parity_of(source: Path, precision: str, artefacts: Path, scratch: Path) -> CheckResult:
    spec = release(source, precision)
    candidate, built = await build_side("assistant", Role.CANDIDATE, spec.candidate, artefacts, protocol=spec.protocol)
    assert candidate is not None, built.sentence
    return await check_parity(spec, candidate, candidate, Workplace(artefacts, scratch))


def test_equal_inputs_give_the_artefact_that_is_there_and_it_says_what_it_is(
    source: Path, artefacts: Path, engine: Manifest
) -> None:
    steps: list[str] = []
    again = ArtefactStore(artefacts).build(
        GgufSpec(str(source), packing=Packing.Q8_0), lambda step, _: steps.append(step)
    )
    assert again == engine
    assert steps[-1] == "found"
    assert engine.language is not None
    assert (engine.language.architecture, engine.language.vocabulary, engine.language.context_length) == (
        "llama", 49152, 8192,
    )  # fmt: skip
    assert engine.language.packing is Packing.Q8_0
    assert [name for name, _ in engine.versions] == ["gguf", "openvino-genai"]


def test_what_is_packed_as_asked_is_copied_as_it_is_and_a_template_may_be_replaced(
    source: Path, artefacts: Path, engine: Manifest, tmp_path: Path
) -> None:
    assert engine.language is not None
    packed = ArtefactStore(artefacts).open(engine.digest)
    goal = tmp_path / "again.gguf"
    facts = write_packed(packed, goal, Packing.Q8_0, template="{{ messages[0].content }}")
    assert facts == dataclasses.replace(facts_of(goal), packing=Packing.Q8_0)
    assert facts.chat_template == "{{ messages[0].content }}"
    own, before = goal.read_bytes(), packed.read_bytes()
    assert own[-(1 << 20) :] == before[-(1 << 20) :]
    assert engine.language == dataclasses.replace(facts, chat_template=engine.language.chat_template)


@pytest.mark.parametrize("length", [0, 100, 1_000_000, 90_000_000])
def test_a_file_that_is_cut_off_is_refused_in_words(source: Path, tmp_path: Path, length: int) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(source.read_bytes()[:length])
    with pytest.raises(EngineError, match=r"damaged\.gguf"):
        write_packed(damaged, tmp_path / "goal.gguf", Packing.F16)


async def test_eight_bits_read_as_the_source_does(source: Path, artefacts: Path, tmp_path: Path) -> None:
    result = await parity_of(source, "q8_0", artefacts, tmp_path)
    assert result.outcome is CheckOutcome.PASS, result.sentence


async def test_a_file_that_its_runtime_damages_is_caught_by_its_perplexity(
    source: Path, artefacts: Path, tmp_path: Path
) -> None:
    """Q4_1 as it comes: sound in itself, and ruined when this runtime loads it."""
    result = await parity_of(source, "as-stored", artefacts, tmp_path)
    assert result.outcome is CheckOutcome.FAIL, result.sentence
    assert "does not read as its source does: perplexity" in result.sentence

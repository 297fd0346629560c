"""A release file that is wrong: every problem, in one pass, at its place, with the cure."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.errors import SpecError
from graylift.spec import load, parse
from graylift.spec.problems import MOST, Place, Problem

ProblemsOf = Callable[[str], list[Problem]]


def place_of(text: str, marked: str) -> Place:
    """Where `marked` stands first."""
    before = text[: text.index(marked)]
    return Place(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


METRIC = "name: latency, quantile: 0.99, rollbackIfWorse: 1.10x, promoteIfWithin: 1.20x"
METRIC_OF_SCORE = "name: helpful, rollbackIfWorse: -0.01, promoteIfWithin: -0.02"
LIMITED = "    whenLimiterAway: deny\n    limits: "
MISTAKES = [
    # what is written there now, what instead, which part of it is marked, what is said of it
    ("graylift.dev/v1", "graylift.dev/v2", "graylift.dev/v2", "did you mean `graylift.dev/v1`?"),
    ("kind: Release", "kind: Rollout", "Rollout", "Release"),
    ("kind: Release\n", "", "apiVersion", "add `kind`: Release"),
    ("name: file-type", "name: File_Type", "File_Type", "lower-case"),
    ("name: file-type", "name: " + "a" * 41, "a" * 41, "up to 40"),
    ("name: file-type", "nam: x, name: file-type", "nam:", "did you mean `name`?"),
    ("metadata: {name: file-type}", "metadata:", "\nspec", "`metadata` is a mapping, not empty"),
    ("open-inference", "grpc", "grpc", "known here: open-inference"),
    ("revision: v1\n", "revision: no\n", "no\n", 'write it in quotes: "no"'),
    ("revision: v1\n", "revision: 1.10\n", "1.10\n", 'write it in quotes: "1.10"'),
    ("revision: v1\n", "revision: 1e3\n", "1e3\n", 'write it in quotes: "1e3"'),
    ("revision: v1\n", "revision: 2026-03-01\n", "2026-03-01", 'write it in quotes: "2026-03-01"'),
    ("revision: v1\n", "revision: v 1\n", "v 1", "not a revision name"),
    ("revision: v1\n", "revision: v2\n", "v2\n    readyWithin", "give each a name of its own"),
    ("    revision: v1\n", "", "stable", "`revision` is missing"),
    ("revision: v1\n", "revision:\n", "\n    model: {onnx: models/v1", "nothing is written here"),
    ("revision: v1\n", "revision: [v1]\n", "[v1]", "one value belongs here"),
    ("{onnx: models/v1.onnx}", "models/v1.onnx", "models/v1.onnx", "is a mapping, not a single value"),
    ("{onnx: models/v1.onnx}", "{}", "model: {}", "`onnx` is missing"),
    ("{onnx: models/v1.onnx}", '{onnx: ""}', '""', "this text is empty"),
    ("{onnx: models/v1.onnx}", '{onnx: "a\\0b"}', '"a\\0b"', "control character"),
    ("{onnx: models/v1.onnx}", "{endpoint: https://host:1}", "https://", "http://host:port"),
    ("{onnx: models/v1.onnx}", "{endpoint: http://host:1/v2}", "http://", "no path"),
    ("{onnx: models/v1.onnx}", "{endpoint: 'http://host:1', threads: 1}", "threads", "beside `endpoint`"),
    ("runtime: onnxruntime", "runtime: torch", "torch", "known here: onnxruntime"),
    ("threads: 2", "threads: 010", "010", "no leading zero"),
    ("threads: 2", "threads: 0", "0\n      inputs", "from 1 to 256"),
    ("threads: 2", "threads: 1.5", "1.5", "a whole number"),
    ("threads: 2", 'threads: "2"', '"2"', "delete the quotes"),
    ("threads: 2", "threads: two", "two", "not a plain number"),
    ("{bytes: x, length: n}", "{bytes: ids, length: ids}", "ids}", "served under two names"),
    ("{bytes: x, length: n}", "{on: x}", "on: x", 'write it in quotes: "on"'),
    ("{bytes: x, length: n}", "{bytes: x, bytes: y}", "bytes: y", "twice: in line 16 and in line 16"),
    ("{bytes: x, length: n}", "[bytes, x]", "[bytes", "is a mapping, not a list"),
    ("readyWithin: 30s", "readyWithin: 1:30", "1:30", "with a unit"),
    ("readyWithin: 30s", "readyWithin: 30", "30\n", "with a unit"),
    ("readyWithin: 30s", "readyWithin: 500ms", "500ms", "from 1s to 1h"),
    ("readyWithin: 30s", "readyWithn: 30s", "readyWithn", "did you mean `readyWithin`?"),
    ("X-User-Id", "'x user'", "'x user'", "not a header name"),
    ("X-User-Id", "X-Graylift-Revision", "X-Graylift", "gateway itself"),
    ("X-User-Id", "Host", "Host", "gateway itself"),
    ("{header: X-User-Id}", "{}", "sticky", "`header` is missing"),
    ("{header: X-User-Id}", "{cookie: a.b}", "a.b", "not a cookie name"),
    ("{header: X-User-Id}", "{cookie: a, header: b}", "header: b", "has no place beside `cookie`"),
    ("{header: X-User-Id}", "{body: user}", "body", "holds tensors"),
    ("exact: internal", "exact: true", "true", 'write it in quotes: "true"'),
    ("exact: internal, ", "", "{header: x-tenant", "`exact` is missing"),
    ("to: candidate}", "to: canary}", "canary", "known here: stable, candidate"),
    (
        "    timeout: 10s",
        "      - {header: X-Tenant, exact: internal, to: stable}",
        "{header: X-Tenant",
        "line 21 sends",
    ),
    ("    timeout: 10s", "    limits: []\n    whenLimiterAway: deny", "[]\n", "is a list with at least one entry"),
    ("    timeout: 10s", "    limits: [{requests: 1/s}]", "routing:", "`whenLimiterAway` is missing"),
    ("    timeout: 10s", "    whenLimiterAway: deny", "whenLimiterAway", "there are no `limits`"),
    ("    timeout: 10s", LIMITED + "[{requests: 0/s}]", "0/s", "whole number for each second"),
    ("    timeout: 10s", LIMITED + "[{requests: 1.5/s}]", "1.5/s", "whole number for each second"),
    ("    timeout: 10s", LIMITED + "[{concurrent: 0}]", "0}", "from 1 to 10,000"),
    ("    timeout: 10s", LIMITED + "[{path: /v1}]", "{path", "limits nothing"),
    ("    timeout: 10s", LIMITED + "[{path: v1, requests: 1/s}]", "v1, req", "is not a path"),
    ("    timeout: 10s", LIMITED + "[{requests: 1/s, answerTokens: 9}]", "answerTokens", "counts no `tokens`"),
    ("    timeout: 10s", LIMITED + "[{tokens: 1/m}]", "tokens", "`protocol: openai` counts tokens"),
    ("    timeout: 10s", LIMITED + "[{key: {header: Host}, requests: 1/s}]", "Host", "gateway itself"),
    (
        "    timeout: 10s",
        LIMITED + "[{requests: 1/s}, {requests: 9/m}, {requests: 2/s}]",
        "{requests: 2/s}",
        "has the limit of requests in 1s for all already",
    ),
    ("    timeout: 10s", "    timeout: 0s", "0s\n  stages", "from 100ms"),
    ("  onFailure: pause", "  onFailure: stop", "stop", "known here: rollback, pause"),
    ("  stages:\n", "  stages:\n    - {shadow: 0%, observe: 1m}\n", "0%, observe: 1m", "above 0%"),
    ("  stages:\n", "  stages:\n    - {shadow: 9%, weight: 9, observe: 1m}\n", "weight: 9", "no user gets an answer"),
    ("  stages:\n", "  stages:\n    - {shadow: 0.001%, observe: 1m}\n", "0.001%", "finer than the smallest step"),
    ("  stages:\n", "  stages:\n    - {shadow: 9%, observe: 1m, methods: [post]}\n", "post", "in capitals"),
    ("{weight: 1,", "{weight: 1, methods: [GET],", "methods", "this stage shadows none"),
    ("weight: 1,", "weight: 0,", "0, observe: 10m", "begin with 1"),
    ("weight: 1,", "weight: 1%,", "1%", "not a plain number"),
    ("weight: 1,", "weight: 0.001,", "0.001", "finer than the smallest step"),
    ("weight: 1,", "weight: 101,", "101", "from 0 to 100"),
    ("weight: 1,", "weight: 20,", "20, observe: 1h", "from 20 % to 20 %"),
    ("weight: 1, ", "", "{observe: 10m", "`weight` is missing"),
    ("observe: 10m, ", "", "{weight: 1,", "`observe` is missing"),
    ("observe: 10m, ", "observe: 10m, watch: 1h, ", "watch: 1h", "last stage alone"),
    ("observe: 10m, ", "observe: 10m, onInconclusive: pause, ", "pause, min", "without `maxDuration`"),
    ("observe: 10m, ", "observe: 10m, maxDuration: 1h, ", "1h, min", "says nothing"),
    ("observe: 10m, ", "observe: 10m, maxDuration: 5m, onInconclusive: rollback, ", "5m, on", "shorter than `observe`"),
    ("watch: 30m", "watch: 30m, maxDuration: 2h", "maxDuration: 2h", "nothing is left to compare with"),
    ("observe: 10m", "observe: 0s", "0s, min", "from 100ms"),
    ("minRequests: 500", "minRequests: 5_000", "5_000", "no `_`"),
    ("minRequests: 500", "minRequests: 5e3", "5e3", "not a plain number"),
    ("approval: required", "approval: yes", "yes", "known here: required"),
    (
        "{weight: 20, observe: 1h, approval: required}",
        "{shadow: 100%, observe: 1h}",
        "shadow",
        "before the first `weight`",
    ),
    ("    - {weight: 100, watch: 30m}\n", "", "20, observe", "end with {weight: 100, watch: 30m}"),
    ("watch: 30m", "watch: 30m, observe: 30m", "observe: 30m", "nothing is left to compare with"),
    (", watch: 30m", "", "{weight: 100", "`watch` is missing"),
    ("errors: 6pp", "errors: 0.6pp", "0.6pp", "tighter than what the judge asks of every stage (1pp)"),
    ("errors: 6pp", "errors: 2x", "2x", "other shares are compared by difference"),
    ("errors: 6pp", '"latency p50": 2x', '"latency p50"', "did you mean `latency p99`?"),
    ("errors: 6pp", "latency p99: 3pp", "3pp", "latencies are compared by ratio"),
    ("falseRollback: 2%", "falseRollback: 2", "2\n    falsePromotion", "write a percentage: 1%"),
    ("falseRollback: 2%", "falseRollback: 60%", "60%", "from 0.01% to 49%"),
    ("name: errors, ", "", "{rollbackIfWorse: 0.5pp", "`name` is missing"),
    ("name: errors", "name: ttft", "ttft", "answers of protocol open-inference come whole"),
    ("name: errors", "name: error", "error,", "did you mean `errors`?"),
    ("name: errors", "name: Helpful", "Helpful,", "write lower-case words"),
    ("name: errors", "name: errors, quantile: 0.5", "quantile: 0.5", "has no quantile"),
    ("name: errors", "name: helpful, quantile: 0.5", "helpful", "would have a margin such as -0.01"),
    (METRIC, "name: helpful, rollbackIfWorse: 0.01, promoteIfWithin: -0.02", "0.01, promote", "-0.01 where lower is"),
    (METRIC, "name: helpful, rollbackIfWorse: -0.01, promoteIfWithin: 3pp", "3pp}\n", "sign that says which way"),
    (METRIC, "name: helpful, rollbackIfWorse: -0.01, promoteIfWithin: +0.02", "+0.02}\n", "looks the other way"),
    (METRIC, "name: helpful, rollbackIfWorse: -0.03, promoteIfWithin: -0.02", "-0.02}\n", "(-0.03)"),
    (METRIC, "name: helpful, rollbackIfWorse: -0.95, promoteIfWithin: -0.9", "-0.95, pro", "at most 0.9"),
    (METRIC, "name: helpful, rollbackIfWorse: -0.01", "{name: helpful", "could never be decided"),
    (METRIC, METRIC_OF_SCORE + ", quantile: 0.5", "quantile: 0.5", "a score is judged by its mean"),
    ("rollbackIfWorse: 0.5pp", "rollbackIfWorse: -0.01", "-0.01", "other shares are compared by difference"),
    ("rollbackIfWorse: 0.5pp", "rollbackIfWorse: 1.5x", "1.5x", "other shares are compared by difference"),
    ("rollbackIfWorse: 0.5pp, ", "", "{name: errors", "could never be decided"),
    ("rollbackIfWorse: 0.5pp", "rollbackIfWorse: 2pp", "1pp}\n", "tighter than rollbackIfWorse (2pp)"),
    ("quantile: 0.99, ", "", "{name: latency", "`quantile` is missing"),
    ("quantile: 0.99", "quantile: 99", "99, rollback", "write a share: 0.99"),
    ("rollbackIfWorse: 1.10x", "rollbackIfWorse: 5pp", "5pp, promoteIfWithin: 1.20x", "compared by ratio"),
    ("rollbackIfWorse: 1.10x", "rollbackIfWorse: 0.90x", "0.90x", "above 1x"),
    ("readyWithin: 30s", "readyWithin: &a 30s", "&a", "YAML anchor"),
    ("readyWithin: 30s", "readyWithin: !!str 30s", "!!str", "YAML tag"),
    ("readyWithin: 30s", "readyWithin: *a", "*a", "YAML alias"),
    ("readyWithin: 30s", "<<: {readyWithin: 30s}", "<<", "merges"),
    ("readyWithin: 30s", "? [a]\n    : b", "[a]", "name of a field"),
    ("  onFailure: pause\n", "  onFailure: pause\n---\na: 1\n", "---", "one release a file"),
    ("kind: Release", "kind: Release\nkind: Release", "kind: Release\nmetadata", "twice: in line 2 and in line 3"),
]


@pytest.mark.parametrize(("old", "new", "marked", "said"), MISTAKES)
def test_a_mistake_is_reported_once_at_its_place_with_the_cure(
    good: str, problems_of: ProblemsOf, old: str, new: str, marked: str, said: str
) -> None:
    assert old in good
    text = good.replace(old, new, 1)
    (problem,) = problems_of(text)
    assert problem.place is not None
    expected = place_of(text, marked)
    assert (problem.place.line, problem.place.column) == (expected.line, expected.column), str(problem)
    assert said in str(problem)


def test_three_mistakes_are_all_shown_in_the_order_of_the_file(good: str) -> None:
    text = good.replace("X-User-Id", "x-user-id, coookie: a").replace("0.5pp", "0.5x")
    text = text.replace("threads: 2", "threads: no")
    with pytest.raises(SpecError) as caught:
        parse(text, "release.yaml", Path("/base"))
    assert str(caught.value) == (
        "release.yaml:15:16: `no` is not a plain number\n"
        "  15 |       threads: no\n"
        "     |                ^^\n"
        "     = write digits, with a point if need be: 500, 0.99 (no unit, no leading zero, no `_`, no `:`)\n"
        "\n"
        "release.yaml:19:33: unknown field `coookie`\n"
        "  19 |     sticky: {header: x-user-id, coookie: a}\n"
        "     |                                 ^^^^^^^\n"
        "     = did you mean `cookie`? known here: header, cookie, body\n"
        "\n"
        "release.yaml:31:41: `0.5x` is not a margin that can stand here\n"
        "  31 |       - {name: errors, rollbackIfWorse: 0.5x, promoteIfWithin: 1pp}\n"
        "     |                                         ^^^^\n"
        "     = write a ratio above 1x: 1.10x is a tenth more than stable"
    )


def test_one_pass_finds_mistakes_of_every_kind(good: str, problems_of: ProblemsOf) -> None:
    """Structure, types, units and rules between fields do not hide each other."""
    text = (
        good.replace("kind: Release\n", "")
        .replace("{bytes: x, length: n}", "{bytes: x, bytes: n}")
        .replace("threads: 2", "threads: [2]")
        .replace("revision: v2", "revision: v1")
        .replace("weight: 20", "weight: 1")
        .replace("observe: 1h", "observe: 1")
        .replace("errors: 6pp", "errors: 6x")
        .replace("1.20x", "1.01x")
        .replace("onFailure: pause", "onFailure: no")
    )
    assert len(problems_of(text)) == 9


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "the file is empty"),
        ("# nothing but a comment\n", "the file is empty"),
        ("[]", "is a mapping, not an empty list"),
        ("just words", "is a mapping, not a single value"),
        ("a:\n\tb: 1", "indent with spaces"),
        ("a: [1, 2", "has no end"),
        ('a: "open\n\n', "has no end"),
        ("a: b: c", "mapping values are not allowed"),
        ("a: \x1b[31m", "U+001B"),
        ("[" * 500_000, "nested deeper than 16 levels"),
        ("{a: " * 250_000, "nested deeper than 16 levels"),
        ("#" * 1_100_000, "larger than 1 MiB"),
    ],
)
def test_what_is_no_release_file_at_all_is_told_so(problems_of: ProblemsOf, text: str, what: str) -> None:
    (*_, problem) = problems_of(text)
    assert what in str(problem)
    assert "\x1b" not in str(problem)
    assert len(str(problem)) < 1000


def test_a_file_of_nothing_but_mistakes_is_read_only_so_far(problems_of: ProblemsOf) -> None:
    assert len(problems_of("".join(f"field{number}: 1\n" for number in range(10 * MOST)))) == MOST


def test_the_caret_stands_under_the_place_behind_wide_characters_and_in_long_lines(problems_of: ProblemsOf) -> None:
    long = f"{{名前: {'x' * 500}, kind: Rollout}}"
    shown = next(str(problem) for problem in problems_of(long) if "Rollout" in problem.what).splitlines()
    assert shown[1].index("Rollout") == shown[2].index("^")
    wide = next(str(problem) for problem in problems_of("{名前: 値, kind: Rollout}") if "Rollout" in problem.what)
    _, source, caret, _ = wide.splitlines()
    assert source.index("Rollout") + 3 == caret.index("^"), "three characters before it are two columns wide"


@given(st.text(st.characters(codec="utf-8"), max_size=60) | st.text("{}[]:,-&*!|>'\"%@`? \n\tab1#", max_size=40))
def test_any_text_is_read_or_refused_with_problems(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text, "release.yaml", Path("/base"))
    assert caught.value.problems


@pytest.mark.parametrize("entries", ["[1, 2]", "[*a]", "[[]]", "[{}]", "[null]", "{}"])
def test_stages_that_are_no_stages_are_refused(good: str, problems_of: ProblemsOf, entries: str) -> None:
    before, after = good.split("  stages:\n")
    assert problems_of(f"{before}  stages: {entries}\n  judge:{after.split('  judge:')[1]}")


@given(st.data())
def test_a_file_with_a_piece_cut_out_is_read_or_refused_with_problems(good: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, len(good)))
    with suppress(SpecError):
        parse(good[:start] + good[end:], "release.yaml", Path("/base"))


class TestLoad:
    """Reading the file itself."""

    def test_a_file_whose_models_are_there_is_read(self, tmp_path: Path, good: str) -> None:
        (tmp_path / "models").mkdir()
        for name in ("v1", "v2"):
            (tmp_path / "models" / f"{name}.onnx").touch()
        file = tmp_path / "release.yaml"
        file.write_text("\ufeff" + good.replace("\n", "\r\n"), encoding="utf-8", newline="")
        assert load(file) == parse(good, "release.yaml", tmp_path)

    def test_a_model_that_is_not_there_is_reported_at_its_line(self, tmp_path: Path, good: str) -> None:
        file = tmp_path / "release.yaml"
        file.write_text(good, encoding="utf-8")
        with pytest.raises(SpecError, match=r"models/v1\.onnx cannot be read: No such file") as caught:
            load(file)
        assert f"{file}:8:19: " in str(caught.value)
        assert f"{file}:13:13: " in str(caught.value)

    @pytest.mark.parametrize(("name", "why"), [("none.yaml", "No such file"), (".", "Is a directory")])
    def test_a_file_that_cannot_be_read_is_named_with_the_reason(self, tmp_path: Path, name: str, why: str) -> None:
        with pytest.raises(SpecError, match=why) as caught:
            load(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")

    def test_a_byte_that_is_not_utf8_is_shown_at_its_place(self, tmp_path: Path) -> None:
        file = tmp_path / "release.yaml"
        file.write_bytes("kind: Release\nname: ü".encode() + b"\xff")
        with pytest.raises(SpecError, match=r"release.yaml:2:8: the byte 0xff is not UTF-8"):
            load(file)

    def test_a_huge_file_is_not_read_to_its_end(self, tmp_path: Path) -> None:
        file = tmp_path / "release.yaml"
        with file.open("wb") as sparse:
            sparse.truncate(1 << 40)
        with pytest.raises(SpecError, match="larger than 1 MiB"):
            load(file)


def test_clients_of_openai_are_served_by_no_onnx_model(good: str, problems_of: ProblemsOf) -> None:
    text = good.replace("open-inference", "openai")
    found = problems_of(text)
    assert [problem.place for problem in found] == [
        place_of(text, "{onnx: models/v1"),
        place_of(text, "onnx: models/v2"),
    ]
    assert all("name the server by `endpoint`" in str(problem) for problem in found)

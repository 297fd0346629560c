"""Who is told and who is asked: what may stand in a release file, and why not what may not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_spec_problems import ProblemsOf

from graylift.domain.notices import TOLD, Email, Gate, Secret, Slack, Webhook
from graylift.domain.spec import ReleaseSpec

URL = "https://ops.example.com/hook"


def test_receivers_and_gates_are_read(good: str, read: Callable[[str], ReleaseSpec]) -> None:
    notify = f"""
  notify:
    - {{slack: {{env: GRAYLIFT_SECRET_SLACK}}, on: [ROLLED_BACK]}}
    - {{webhook: "{URL}", signingKey: {{env: GRAYLIFT_SECRET_KEY}}}}
    - {{email: {{to: [a@b.example], from: g@b.example, server: "mail.example:25"}}}}
"""
    spec = read(with_gate(good, f'[{{name: window, url: "{URL}"}}]') + notify)
    assert spec.notify == (
        Slack(Secret("GRAYLIFT_SECRET_SLACK"), ("ROLLED_BACK",)),
        Webhook(URL, Secret("GRAYLIFT_SECRET_KEY"), TOLD),
        Email(("a@b.example",), "g@b.example", "mail.example", 25),
    )
    assert spec.stages[0].confirm == (Gate("window", URL, 10.0, None),)


def with_gate(good: str, gates: str) -> str:
    return good.replace("observe: ", f"confirm: {gates}, observe: ", 1)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("{slack: {env: PATH}}", "begin it with GRAYLIFT_SECRET_"),
        ("{webhook: 'https://hooks.slack.com/services/T0/B0/x'}", "put it into an environment variable"),
        ("{webhook: 'https://user:word@ops.example.com/'}", "put it into an environment variable"),
        ("{webhook: 'https://ops.example.com/?token=x'}", "put it into an environment variable"),
        ("{webhook: 'ftp://ops.example.com/'}", "write http"),
        (f"{{webhook: '{URL}', slack: {{env: GRAYLIFT_SECRET_S}}}}", "make two entries of them"),
        ("{slack: {env: GRAYLIFT_SECRET_S}, signingKey: {env: GRAYLIFT_SECRET_K}}", "only a `webhook` is signed"),
        (f"{{webhook: '{URL}', on: [LUNCH]}}", "LUNCH"),
        ("{email: {to: [a@b.example], from: g@b.example, server: 'mail.example:70000'}}", "70000 is no port"),
    ],
)
def test_what_would_leak_or_mean_nothing_is_refused(good: str, problems_of: ProblemsOf, entry: str, why: str) -> None:
    found = problems_of(good + f"\n  notify:\n    - {entry}\n")
    assert len(found) == 1
    assert why in str(found[0])


def test_two_gates_of_a_stage_have_names_of_their_own(good: str, problems_of: ProblemsOf) -> None:
    gate = f"{{name: window, url: '{URL}'}}"
    (found,) = problems_of(with_gate(good, f"[{gate}, {gate}]"))
    assert "name them apart" in str(found)

"""What clients of the HTTP API get: what is stored, commands taken in, scores told one by one what became of them."""

from __future__ import annotations

import io
import json
import socket
from typing import Any

import pytest
from api_site import Site

from graylift.adapters.otlp import OtlpSource
from graylift.api import ApiServer, create_app
from graylift.domain.release import CommandKind
from graylift.domain.scores import Score
from graylift.errors import CommandRefused, StoreError
from graylift.ports import Snapshot
from graylift.testing.fakes import FakeClock

GOOD = {"request_id": "known", "name": "helpful", "value": 0.8}


async def got(site: Site, path: str) -> tuple[int, Any]:
    async with site.http.get(site.url + path) as response:
        return response.status, await response.json()


async def posted(site: Site, path: str, body: object) -> tuple[int, Any]:
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with site.http.post(site.url + path, data=data, headers={"content-type": "application/json"}) as response:
        return response.status, await response.json()


async def test_services_tell_where_they_stand(site: Site) -> None:
    status, answer = await got(site, "/v1/services")
    (service,) = answer["services"]
    assert status == 200
    assert service["service"] == "file-type"
    assert (service["release"], service["phase"]) == ("file-type-1", "PROGRESSING")
    assert service["reason"] == "observed 3 s of 5 s"


async def test_a_release_is_told_whole(site: Site) -> None:
    status, release = await got(site, "/v1/releases/file-type-1")
    assert (status, release["phase"], release["observed_s"]) == (200, "PROGRESSING", 3.0)
    assert release["spec"]["judge"]["checks"][1]["score"] == "helpful"
    assert await got(site, "/v1/releases/other-1") == (
        404,
        {"error": "there is no release 'other-1'; GET /v1/services names them"},
    )


async def test_a_command_is_put_before_the_controller(site: Site) -> None:
    status, answer = await posted(site, "/v1/releases/file-type-1/commands", {"command": "pause", "reason": "look"})
    (command,) = site.store.snapshot().commands
    assert (status, answer["id"], answer["status"]) == (202, command.id, "waiting")
    assert (command.kind, command.service, command.by, command.reason) == (
        CommandKind.PAUSE,
        "file-type",
        "api",
        "look",
    )


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/releases/other-1/commands", {"command": "pause"}, 404),
        ("/v1/releases/file-type-1/commands", {"command": "start"}, 422),
        ("/v1/releases/file-type-1/commands", {"command": "explode"}, 422),
        ("/v1/releases/file-type-1/commands", {"command": "pause", "force": True}, 422),
    ],
)
async def test_a_command_that_cannot_be_is_refused_and_not_stored(
    site: Site, path: str, body: dict[str, Any], status: int
) -> None:
    assert (await posted(site, path, body))[0] == status
    assert site.store.snapshot().commands == ()


async def test_a_command_sent_again_with_its_id_is_the_same_command(site: Site) -> None:
    body = {"id": "0123-abcd", "command": "pause", "reason": "look"}
    for _ in range(2):
        assert (await posted(site, "/v1/releases/file-type-1/commands", body))[0] == 202
    assert [command.id for command in site.store.snapshot().commands] == ["0123-abcd"]
    assert (await got(site, "/v1/commands/0123-abcd"))[0] == 202
    assert (await got(site, "/v1/commands/another-one"))[0] == 404


async def test_a_form_of_a_foreign_page_commands_nothing(site: Site) -> None:
    for headers in ({"content-type": "text/plain"}, {"host": "evil.example", "content-type": "application/json"}):
        async with site.http.post(
            f"{site.url}/v1/releases/file-type-1/commands", data=b'{"command": "abort"}', headers=headers
        ) as response:
            assert response.status in (415, 421)
    assert site.store.snapshot().commands == ()


async def test_a_score_is_counted_once_and_its_names_are_those_of_the_release(site: Site) -> None:
    assert await posted(site, "/v1/scores", GOOD) == (
        200,
        {"request_id": "known", "name": "helpful", "status": "counted"},
    )
    status, again = await posted(site, "/v1/scores", GOOD)
    assert (status, again["status"]) == (200, "repeated")
    assert site.scores.counted == [Score("known", "helpful", 0.8)]
    assert {service: tuple(names) for service, names in site.scores.names.items()} == {"file-type": ("helpful",)}


async def test_of_a_list_each_is_told_what_became_of_it(site: Site) -> None:
    wrong = [GOOD | {"value": 1.5}, GOOD | {"value": True}, GOOD | {"extra": 1}, {"name": "helpful", "value": 1}, 7]
    status, answer = await posted(site, "/v1/scores", [GOOD, GOOD | {"request_id": "lost"}, *wrong])
    assert (status, answer["counted"]) == (200, 1)
    assert [one["status"] for one in answer["scores"]] == ["counted", "unknown", *["refused"] * len(wrong)]
    assert "expected {" in answer["scores"][2]["reason"]
    assert site.scores.counted == [Score("known", "helpful", 0.8)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (GOOD | {"request_id": "lost"}, 404),
        (GOOD | {"value": -0.1}, 422),
        (b'{"request_id": "known", "name": "helpful", "value": NaN}', 422),
        (GOOD | {"request_id": "x" * 101}, 422),
        (b"{half", 400),
        (b"[" * 100_000, 400),
        ([], 413),
        ([GOOD] * 1001, 413),
        (b" " * (1024 * 1024 + 1), 413),
    ],
)
async def test_what_is_no_score_is_refused_and_counts_nothing(site: Site, body: object, status: int) -> None:
    found, answer = await posted(site, "/v1/scores", body)
    assert found == status
    assert "reason" in answer or "error" in answer
    assert site.scores.counted == []


async def test_a_store_that_is_away_is_said_and_may_be_asked_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked() -> Snapshot:
        raise StoreError("the state is locked by another process")

    monkeypatch.setattr(site.store, "snapshot", locked)
    assert await got(site, "/v1/services") == (503, {"error": "the state is locked by another process"})


async def test_a_port_that_is_taken_is_refused_with_the_cure(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = ApiServer(
            create_app(site.store, site.scores, OtlpSource(), FakeClock(), "127.0.0.1"),
            "127.0.0.1",
            taken.getsockname()[1],
        )
        with pytest.raises(CommandRefused, match="--api"):
            await server.start()

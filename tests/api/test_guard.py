"""What may reach the control plane: a page of somebody else in a browser on this machine may not."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from graylift.api.guard import Guard


async def _answer(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("done")


@pytest.fixture
def client() -> TestClient:
    app = Starlette(routes=[Route("/", _answer, methods=["GET", "POST"])])
    return TestClient(Guard(app, ["127.0.0.1", "localhost", "::1"]), base_url="http://127.0.0.1:9000")


def test_every_answer_forbids_what_a_page_of_ours_does_not_need(client: TestClient) -> None:
    answer = client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "LOCALHOST:1", "[::1]:9000", "localhost"])
def test_our_own_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).text == "done"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:9000", "", "[::2]:9000"])
def test_a_foreign_name_that_points_here_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "TEXT/PLAIN"]
)
def test_what_a_foreign_form_can_send_is_no_command(client: TestClient, kind: str) -> None:
    assert client.post("/", content=b"{}", headers={"content-type": kind}).status_code == 415


def test_a_script_of_another_site_gives_no_command(client: TestClient) -> None:
    headers = {"content-type": "application/json", "sec-fetch-site": "cross-site"}
    assert client.post("/", content=b"{}", headers=headers).status_code == 403
    headers["sec-fetch-site"] = "same-origin"
    assert client.post("/", content=b"{}", headers=headers).text == "done"

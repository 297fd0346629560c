"""Who may use the API once somebody has a token: whoever shows a good one, for what its rank allows."""

from __future__ import annotations

import io
import logging

import pytest
from api_site import Site

from graylift.api.door import GUESSES, MAX_BYTES
from graylift.domain.access import Rank, Token, digest_of
from graylift.errors import CommandRefused

COMMANDS = "/v1/releases/file-type-1/commands"


def given(site: Site, name: str, rank: Rank, **times: float) -> dict[str, str]:
    secret = f"secret-of-{name}"
    site.store.add_token(Token(name, rank, digest_of(secret), 1.0, **times))
    return {"authorization": f"Bearer {secret}"}


async def paused(site: Site, headers: dict[str, str]) -> int:
    async with site.http.post(site.url + COMMANDS, json={"command": "pause"}, headers=headers) as answer:
        return answer.status


async def seen(site: Site, headers: dict[str, str], path: str = "/v1/services") -> int:
    async with site.http.get(site.url + path, headers=headers) as answer:
        return answer.status


async def test_an_operator_commands_by_name(site: Site) -> None:
    assert await paused(site, given(site, "ana", Rank.OPERATOR)) == 202
    assert [command.by for command in site.store.snapshot().commands] == ["ana"]


async def test_a_viewer_sees_and_commands_nothing(site: Site) -> None:
    viewer = given(site, "bo", Rank.VIEWER)
    assert (await seen(site, viewer), await paused(site, viewer)) == (200, 403)
    assert site.store.snapshot().commands == ()


@pytest.mark.parametrize("times", [{"expires_s": 2.0}, {"revoked_s": 2.0}])
async def test_an_expired_or_revoked_token_opens_nothing_and_neither_does_its_absence(
    site: Site, times: dict[str, float]
) -> None:
    old = given(site, "ana", Rank.ADMIN, **times)
    assert [await paused(site, headers) for headers in (old, {})] == [401, 401]
    assert await seen(site, {}, "/") == 401
    assert site.store.snapshot().commands == ()


async def test_a_wrong_token_is_logged_without_itself_and_guessing_is_stopped(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    right = given(site, "ana", Rank.ADMIN)
    with caplog.at_level(logging.WARNING):
        statuses = [await seen(site, {"authorization": "Bearer guess-77"}) for _ in range(GUESSES + 1)]
    assert statuses == [401] * GUESSES + [429]
    assert await seen(site, right) == 429
    assert "'/v1/services' by unknown from 127.0.0.1" in caplog.text
    assert "guess-77" not in caplog.text


async def test_a_giant_body_is_refused_before_it_is_read(site: Site) -> None:
    body, kind = io.BytesIO(b" " * (MAX_BYTES + 1)), {"content-type": "application/json"}
    async with site.http.post(site.url + COMMANDS, data=body, headers=kind) as answer:
        assert answer.status == 413


async def test_a_name_has_one_good_token_and_only_its_hash_is_kept(site: Site) -> None:
    given(site, "ana", Rank.VIEWER)
    with pytest.raises(CommandRefused, match="token revoke ana"):
        given(site, "ana", Rank.ADMIN)
    site.store.revoke_token("ana", 5.0)
    given(site, "ana", Rank.ADMIN)
    assert "secret-of" not in repr(site.store.tokens())


async def test_a_browser_is_sent_to_the_login_and_comes_back_with_a_cookie_no_script_can_read(site: Site) -> None:
    viewer = given(site, "bo", Rank.VIEWER)
    async with site.http.get(f"{site.url}/", headers={"accept": "text/html"}, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["location"]) == (303, "/login")
    assert await seen(site, {}, "/login") == 200
    async with site.http.post(f"{site.url}/login", json={}, headers=viewer) as answer:
        (cookie,) = answer.headers.getall("set-cookie")
        assert answer.status == 204
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
    with_cookie = {"cookie": cookie.partition(";")[0]}
    assert (await seen(site, with_cookie, "/"), await paused(site, with_cookie)) == (200, 403)
    async with site.http.post(f"{site.url}/login", json={}, headers={"authorization": "Bearer wrong"}) as answer:
        assert answer.status == 401
        assert "set-cookie" not in answer.headers


async def test_a_forged_form_with_a_cookie_commands_nothing(site: Site) -> None:
    given(site, "ana", Rank.OPERATOR)
    forged = {"cookie": "graylift-token=secret-of-ana", "sec-fetch-site": "cross-site"}
    assert await paused(site, forged) == 403
    async with site.http.post(site.url + COMMANDS, data={"command": "pause"}, headers=forged) as answer:
        assert answer.status == 403
    assert site.store.snapshot().commands == ()

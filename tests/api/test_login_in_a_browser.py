"""The login in a real Chromium: a wrong token is told, a right one opens the page."""

from __future__ import annotations

import shutil

import pytest
from api_site import Site
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import async_playwright, expect

from graylift.domain.access import Rank, Token, digest_of

CHROMIUM = shutil.which("chromium")


@pytest.mark.real
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
async def test_a_token_opens_the_page(site: Site) -> None:
    site.store.add_token(Token("ana", Rank.OPERATOR, digest_of("right"), 1.0))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page()
        await page.goto(site.url)
        await expect(page).to_have_url(f"{site.url}/login")
        found = await Axe().run(page)
        assert [v["id"] for v in found.response["violations"] if v["impact"] in ("serious", "critical")] == []
        await page.get_by_label("Token").fill("wrong")
        await page.get_by_role("button", name="Log in").click()
        await expect(page.locator("#login-told")).to_contain_text("a good token is needed")
        await page.get_by_label("Token").fill("right")
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_role("link", name="file-type-1")).to_be_visible()
        await page.get_by_role("link", name="file-type-1").click()
        await page.get_by_role("button", name="pause", exact=True).click()
        await page.get_by_role("dialog").get_by_role("button", name="pause", exact=True).click()
        await expect(page.locator("#told")).to_contain_text("nobody has handled it yet")
        await browser.close()
    assert [command.by for command in site.store.snapshot().commands] == ["ana"]

"""The page in a real Chromium, over whole live releases with real traffic."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
import tiny_models
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright, expect
from site_under_test import Site, release_text

from graylift.domain.release import Phase

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]
STAGES = """
    - {weight: 20, observe: 1s, minRequests: 20, promoteIfWithin: {errors: 20pp, latency p50: 20x}}
    - {weight: 50, observe: 1s, approval: required, promoteIfWithin: {errors: 10pp, latency p50: 20x}}
    - {weight: 100, watch: 1s}
"""
WAIT_MS = 60_000


@dataclass(slots=True)
class Window:
    """A page of the browser, and whatever it complained of."""

    page: Page
    complaints: list[str] = field(default_factory=list[str])

    def watch(self) -> None:
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda told: self.complaints.append(told.text) if told.type in ("error", "warning") else None,
        )
        self.page.on(
            "request",
            lambda asked: None if asked.url.startswith("http://127.0.0.1:") else self.complaints.append(asked.url),
        )

    async def command(self, name: str, reason: str) -> None:
        await self.page.get_by_role("button", name=name, exact=True).click()
        dialog = self.page.get_by_role("dialog")
        await dialog.get_by_label("Reason").fill(reason)
        await dialog.get_by_role("button", name=name, exact=True).click()

    async def until_phase(self, phase: Phase) -> None:
        await expect(self.page.locator("h1 .phase")).to_have_text(phase.value, timeout=WAIT_MS)


@pytest.fixture
async def browser() -> AsyncGenerator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        await browser.close()


async def window_of(browser: Browser, *, width: int = 1280, dark: bool = False) -> Window:
    context = await browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light"
    )
    window = Window(await context.new_page())
    window.watch()
    return window


async def address_of(site: Site, *, or_none: bool = False) -> str | None:
    code, text = await site.tell("status", "--json")
    assert code == 0 or or_none, text
    return json.loads(text)["api"] if code == 0 else None


def files(site: Site) -> str:
    tiny_models.affine(site.folder / "v1.onnx", scale=2)
    tiny_models.affine(site.folder / "v2.onnx", scale=3)
    text = release_text("revision: v1, model: {onnx: v1.onnx}", "revision: v2, model: {onnx: v2.onnx}", stages=STAGES)
    return str(site.write(text))


async def test_a_release_is_watched_approved_and_promoted_on_the_page(site: Site, browser: Browser) -> None:
    run = site.start("run", files(site))
    window = await window_of(browser)
    async with site.traffic():
        await site.until_phase(Phase.PROGRESSING)
        page = window.page
        await page.goto(str(await address_of(site)))
        await page.get_by_role("link", name="tiny-1").click()
        here = page.locator(".track li[aria-current=step] b")
        await expect(here).to_have_text("50 %", timeout=WAIT_MS)
        await expect(page.get_by_text("✓ 2 of 2 checks PASS")).to_be_visible(timeout=WAIT_MS)
        await expect(page.get_by_role("button", name="resume", exact=True)).to_be_disabled()
        assert await page.locator("#arms td").first.inner_text() == "50 %"
        found = await Axe().run(page)
        serious = [v["id"] for v in found.response["violations"] if v["impact"] in ("serious", "critical")]
        assert serious == [], found.generate_report()
        await window.command("approve", "looked at it")
        await window.until_phase(Phase.PROMOTED)
        assert await run.end() == 0, run.output()

    release = site.release()
    assert release is not None
    assert release.phase is Phase.PROMOTED
    assert [one for one in window.complaints if "ERR_CONNECTION" not in one and "ERR_INCOMPLETE" not in one] == []
    # The run is over, and with it the control plane: the page says so instead of pretending.
    await expect(window.page.locator("#away")).to_be_visible(timeout=WAIT_MS)


async def test_a_release_is_aborted_on_a_phone_in_the_dark_and_its_report_read(site: Site, browser: Browser) -> None:
    up = site.start("up")
    while not await address_of(site, or_none=True):  # or `run` would be the one whose page this is, and end with it
        await asyncio.sleep(0.1)
    run = site.start("run", files(site))
    window = await window_of(browser, width=390, dark=True)
    async with site.traffic():
        await site.until_phase(Phase.PROGRESSING)
        page = window.page
        await page.goto(f"{await address_of(site)}/releases/tiny-1")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is wider than a phone"
        await window.command("abort", "<b>not</b> today")
        await window.until_phase(Phase.ROLLED_BACK)
        assert await run.end() == 3, run.output()
        await expect(page.locator("#events")).to_contain_text("<b>not</b> today")
        await expect(page.get_by_role("button", name="retry", exact=True)).to_be_enabled()
        await page.get_by_role("link", name="report", exact=True).click()
        await expect(page.locator("h1")).to_contain_text("ROLLED_BACK")
        assert await page.locator("svg").count() > 0
        await page.goto(f"{await address_of(site)}/releases")
        await expect(page.locator("tbody")).to_contain_text("aborted by")
    assert window.complaints == []
    assert up.kill(signal.SIGTERM) in (0, 130)

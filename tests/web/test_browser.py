"""The pages in a real browser: axe, keyboard, phone, live updates, and a silent console."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from drupelet.fleet.store.engine import migrate, open_store
from drupelet.trust.director import Director
from tests.waiting import until
from tests.web.serving import serving
from tests.web.shop import Shop

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's package chromium"),
]
PAGES = (
    "/", "/devices", "/devices/entrance-4", "/devices/street-7", "/rollouts", "/rollouts/4", "/rollouts/5", "/releases",
    "/releases/kiosk/1.3", "/audit", "/sign-in", "/nowhere",
)  # fmt: skip
LIGHT_DESK = {"viewport": {"width": 1200, "height": 850}, "color_scheme": "light"}
DARK_PHONE = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True}


@pytest.fixture(scope="module")
def shown(director: Director, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, str]]:
    """A shop of our own, since these tests change it, and where it is served."""
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('shown') / 'fleet.db'}")
    migrate(store)
    shop = Shop(store, director)
    with serving(shop) as base:
        yield shop, base
    store.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield launched
        launched.close()


def signed_in(browser: Browser, shown: tuple[Shop, str], who: str = "operator", **options: Any) -> BrowserContext:
    shop, base = shown
    context = browser.new_context(base_url=base, reduced_motion="reduce", **options)
    context.add_cookies([{"name": "drupelet_token", "value": shop.tokens[who], "url": base}])
    return context


def listened(page: Page) -> list[str]:
    """Everything the browser complains of from now on."""
    heard: list[str] = []
    page.on("console", lambda said: heard.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: heard.append(str(error)))
    return heard


@pytest.mark.parametrize("look", [LIGHT_DESK, DARK_PHONE], ids=["light-desk", "dark-phone"])
def test_every_page_is_accessible_fits_and_says_nothing_to_the_console(
    browser: Browser, shown: tuple[Shop, str], look: dict[str, Any]
) -> None:
    context = signed_in(browser, shown, **look)
    page = context.new_page()
    axe = Axe()
    wrong = []
    for path in PAGES:
        heard = listened(page)
        page.goto(path)
        if path.startswith("/rollouts/"):
            page.wait_for_selector("#evidence .main-svg")
        wrong += [f"{path}: {text}" for text in heard if not (path == "/nowhere" and "404" in text)]
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wrong.append(f"{path}: wider than the window")
        found = axe.run(page, context={"exclude": [["#evidence > *"]]}, options={"resultTypes": ["violations"]})
        if found.violations_count:
            wrong.append(f"{path}: {found.generate_report()}")
    context.close()
    assert not wrong, "\n".join(wrong)


def test_a_change_reaches_the_page_without_a_reload_and_keeps_the_place(
    browser: Browser, shown: tuple[Shop, str]
) -> None:
    shop, _ = shown
    context = signed_in(browser, shown, **LIGHT_DESK)
    page = context.new_page()
    page.goto("/devices")
    page.wait_for_selector("#live.on")
    page.evaluate("window.stayed = true")
    page.fill("#selector", "half a wo")
    page.evaluate("scrollTo(0, 40)")
    shop.fleet.devices.label("cafe-5", {"shelf": "winter"}, by="test")
    page.get_by_text("shelf=winter").wait_for(timeout=8_000)
    assert page.evaluate("window.stayed") is True
    assert page.input_value("#selector") == "half a wo"
    assert page.evaluate("document.activeElement.id") == "selector"
    context.close()


def test_a_reports_scripts_run_in_a_box(browser: Browser, shown: tuple[Shop, str]) -> None:
    context = signed_in(browser, shown)
    page = context.new_page()
    page.goto("/releases/kiosk/1.2")
    page.get_by_role("link", name="The whole report").click()
    page.wait_for_function("document.title != 'Evaluation'")
    assert page.title() == "SecurityError blocked"
    context.close()


def test_without_javascript_everything_is_there(browser: Browser, shown: tuple[Shop, str]) -> None:
    context = signed_in(browser, shown, java_script_enabled=False)
    page = context.new_page()
    page.goto("/rollouts/4")
    assert "Rolled back" in page.inner_text("#h-verdict")
    assert "mandatory" in page.inner_text("table >> nth=0")
    assert "needs JavaScript" in page.inner_text("#evidence")
    context.close()


def test_new_evidence_reaches_the_chart(browser: Browser, shown: tuple[Shop, str]) -> None:
    shop, _ = shown
    context = signed_in(browser, shown, who="reader", **LIGHT_DESK)
    page = context.new_page()
    page.goto("/rollouts/5")
    page.wait_for_selector("#evidence .main-svg")
    page.wait_for_selector("#live.on")

    def points() -> int:
        return int(page.evaluate("document.getElementById('evidence').data[0].x.length"))

    before = points()
    shop.turn(offline=frozenset({"street-7"}))
    until(lambda: points() > before, timeout_s=15, what="the new pairs in the chart")
    context.close()


def test_the_keyboard_alone_signs_in_and_pauses(browser: Browser, shown: tuple[Shop, str]) -> None:
    shop, base = shown
    context = browser.new_context(base_url=base, reduced_motion="reduce")
    page = context.new_page()
    heard = listened(page)
    page.goto("/rollouts/5")
    assert page.url.endswith("/sign-in?next=/rollouts/5")
    tab_to(page, "token")
    page.keyboard.type(shop.tokens["operator"])
    page.keyboard.press("Enter")
    page.wait_for_url(f"{base}/rollouts/5")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    tab_to(page, "pause", at_most=6)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.locator("#h-verdict", has_text="Paused by an operator").wait_for(timeout=8_000)
    until(lambda: shop.fleet.reader.rollout(5).rollout.state == "paused", timeout_s=5, what="the pause")
    asked = [row for row in shop.fleet.reader.audit(subject="rollout 5").items if row.action == "rollout.pause"]
    assert [row.actor for row in asked] == ["operator"]
    assert not heard
    context.close()


def tab_to(page: Page, element: str, *, at_most: int = 20) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(at_most):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == element:
            return
    raise AssertionError(f"no way to {element} within {at_most} tabs")

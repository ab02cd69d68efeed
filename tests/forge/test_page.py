"""The report's page: no prompt becomes markup, nothing comes from outside, the same report is the same page."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from drupelet.core.names import Digest, ReleaseId
from drupelet.forge.page import report_page
from drupelet.forge.page.charts import KL_FLOOR, charts
from drupelet.forge.plan.pareto import pareto
from drupelet.forge.report import (
    CanonicalResult,
    CheckResult,
    CostAt,
    GroupResult,
    ReferenceCheck,
    Regression,
    Report,
    VariantReport,
)
from drupelet.wire.manifest import Quality

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"
RELEASE = ReleaseId.parse("kiosk/1.2")
ZERO = Digest.of_hex("0" * 64).text
CHROMIUM = Path("/usr/bin/chromium")


def _variant(name: str, kl: float, size: int, **changes: Any) -> VariantReport:
    regression = Regression(
        before=1.0, after=0.75, drop=0.25, low=0.0, high=0.75, p_value=0.5, lost=1, won=0, lost_prompts=(EVIL,)
    )
    one = VariantReport(
        name=name,
        quantization=name,
        runner="xllamacpp 1",
        digest=ZERO,
        size_bytes=size,
        convert_ms=1,
        load_ms=1,
        ttft_ms=1.0,
        answer_ms=1.0,
        tokens_per_second=100.0,
        memory_bytes=40 << 20,
        costs=(CostAt(prompt_tokens=14, ttft_ms=1.0, tokens_per_second=100.0, memory_bytes=40 << 20),),
        quality=Quality(kl_mean=kl, kl_p99=kl * 5, kl_max=kl * 9, top1_agreement=0.99, tokens=100),
        kl_quantiles=(kl / 2, kl * 5, kl * 9),
        worst_prompt=EVIL,
        worst_kl=kl,
        deterministic=True,
        canonical=(CanonicalResult(id="sunday", passed=True, why=EVIL),),
        checks=(CheckResult(id="any", group="tone", prompt=EVIL, passed=None, why=EVIL),),
        groups=(
            GroupResult(name="canonical", passed=1, total=1, low=0.2, high=1.0),
            GroupResult(name="tone", passed=3, total=4, unjudged=0, low=0.3, high=0.95, regression=regression),
        ),
    )
    return msgspec.structs.replace(one, **changes)


def _report(**changes: Any) -> Report:
    variants = (
        _variant("q8_0", 0.0001, 2 << 20),
        _variant("q4_0", 0.002, 1 << 20, findings=(EVIL,)),
        _variant("f16", 0.0, 4 << 20),
    )
    report = Report(
        reference=ZERO,
        reference_check=ReferenceCheck(positions=10, kl_mean=1e-7, kl_max=1e-6, top1_agreement=1.0),
        checkpoint=ZERO,
        replaces="kiosk 1.1",
        sequences=1,
        positions=100,
        quantiles=(0.5, 0.99, 1.0),
        passed=False,
        findings=(f"q4_0: {EVIL}",),
        variants=variants,
    )
    return msgspec.structs.replace(report, **changes)


def test_no_prompt_becomes_markup_and_nothing_comes_from_outside() -> None:
    page = report_page(RELEASE, _report(), summary=EVIL, override=EVIL).decode()
    ours, _, library = page.partition('<script type="application/json"')
    assert "<script" not in ours
    assert "<img" not in ours
    assert html.escape(EVIL) in ours
    assert "49" not in re.findall(r"7 \* 7|\b49\b", ours), "a prompt is no template"
    assert "default-src 'none'" in ours
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", ours)
    assert library.count("</script>") == 3, "data, library, script"


def test_the_same_report_is_the_same_page() -> None:
    assert report_page(RELEASE, _report()) == report_page(RELEASE, _report())


def test_the_charts_have_the_reports_numbers() -> None:
    data = charts(_report())
    assert data["quality"]["names"] == ["q8_0", "q4_0", "f16"]
    assert data["quality"]["kl"] == [0.0001, 0.002, KL_FLOOR]
    assert data["quality"]["refused"] == [False, True, False]
    assert data["quality"]["front"] == [1, 0, 2]
    assert [curve["name"] for curve in data["kl"]["curves"]] == ["q8_0", "q4_0"], "f16 is no distance from itself"
    assert data["kl"]["at"] == ["50%", "99%", "worst"]
    assert data["groups"]["curves"][0]["rows"] == [None, [-25.0, -75.0, 0.0]]
    alone = charts(_report(replaces=""))
    assert alone["groups"]["curves"][0]["rows"] == [[100.0, 20.0, 100.0], [75.0, 30.0, 95.0]]
    assert json.loads(json.dumps(alone)) == alone


@pytest.mark.parametrize(
    ("points", "front"),
    [([], []), ([(1, 1), (2, 2)], [0]), ([(2, 1), (1, 2), (3, 1)], [1, 0]), ([(1, 2), (1, 1)], [1])],
)
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]], front: list[int]) -> None:
    assert pareto(points) == front


def test_an_empty_report_is_a_page_too() -> None:
    page = report_page(RELEASE, _report(variants=(), replaces="", reference_check=None, passed=True, findings=()))
    assert b"Passed" in page
    assert b"chart-kl" not in page.partition(b'<script type="application/json"')[0]


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's package chromium")
@pytest.mark.parametrize("look", ["light", "dark"])
def test_it_is_accessible_draws_and_says_nothing_to_the_console(tmp_path: Path, look: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    path = tmp_path / "report.html"
    path.write_bytes(report_page(RELEASE, _report()))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        width = 1200 if look == "light" else 360
        page = browser.new_context(color_scheme=look, viewport={"width": width, "height": 800}).new_page()
        heard: list[str] = []
        page.on("console", lambda said: heard.append(said.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("dialog", lambda dialog: heard.append("a prompt ran as a script"))
        page.goto(path.as_uri())
        for chart in ("quality", "kl", "groups"):
            page.wait_for_selector(f"#chart-{chart} .main-svg")
        found = Axe().run(page, context={"exclude": [[".chart > *"]]}, options={"resultTypes": ["violations"]})
        assert not found.violations_count, found.generate_report()
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
        browser.close()
    assert heard == []

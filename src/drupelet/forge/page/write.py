"""From a report, or a plan, to the page's bytes."""

from __future__ import annotations

import importlib.util
import json
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from drupelet.core.errors import NotFound
from drupelet.core.names import ReleaseId
from drupelet.forge.page.charts import charts, plan_charts
from drupelet.forge.plan.plan import Plan
from drupelet.forge.plan.predict import SPEED_MAX
from drupelet.forge.report import Report, VariantReport

_PLOTLY = "plotly.min.js"
_FAILED_SHOWN = 60


def report_page(release: ReleaseId, report: Report, *, summary: str = "", override: str = "") -> bytes:
    """Return the page of a release's report, UTF-8. Raises `NotFound` if the chart library is not installed."""
    return _page(
        "report.html",
        charts(report),
        release=str(release),
        report=report,
        summary=summary,
        override=override,
        replaces=report.replaces,
        failed=_failed(report),
    )


def plan_page(plan: Plan) -> bytes:
    """Return the page of a plan, UTF-8. Raises `NotFound` if the chart library is not installed."""
    return _page("plan.html", plan_charts(plan), plan=plan, speed_max=SPEED_MAX)


def _page(template: str, data: dict[str, Any], **values: Any) -> bytes:
    script = template.replace(".html", ".js")
    text = (
        _environment()
        .get_template(template)
        .render(
            charts=data,
            data=_inside_script(data),
            style=Markup(_own("report.css")),  # noqa: S704  (ours)
            script=Markup(_own("look.js") + _own(script)),  # noqa: S704  (ours)
            library=Markup(_library()),  # noqa: S704  (from the installed wheel)
            **values,
        )
    )
    return text.encode()


def _failed(report: Report) -> list[tuple[str, str, str, bool | None, str]]:
    """Return variant, group, prompt, verdict and why of what was not answered well, the first of each variant."""
    found: list[tuple[str, str, str, bool | None, str]] = []
    for one in report.variants:
        rows: list[tuple[str, str, str, bool | None, str]]
        rows = [(one.name, "canonical", result.id, result.passed, result.why) for result in one.canonical]
        rows += [(one.name, result.group, result.prompt, result.passed, result.why) for result in one.checks]
        found += [row for row in rows if row[3] is not True][:_FAILED_SHOWN]
    return found


def _inside_script(value: object) -> Markup:
    """Return JSON that cannot end the element it stands in, nor begin a comment."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(safe)  # noqa: S704


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("drupelet.forge.page", package_path="."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"mib": lambda size: f"{size / (1 << 20):.1f}", "share": _share, "nats": _nats}
    made.tests["refused"] = _refused
    return made


def _share(value: float) -> str:
    return f"{value:.1%}"


def _nats(value: float) -> str:
    return "0" if value == 0 else f"{value:.5f}" if value >= 1e-5 else f"{value:.0e}"


def _refused(one: VariantReport) -> bool:
    return bool(one.findings)


def _own(name: str) -> str:
    return (files("drupelet.forge.page") / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _library() -> str:
    """Return the chart library out of its wheel, without importing it; it must not end the element it stands in."""
    found = importlib.util.find_spec("plotly")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "package_data" / _PLOTLY
        if path.is_file():
            return path.read_text(encoding="utf-8").replace("</script", "<\\/script")
    raise NotFound("the chart library is not installed", fix="install the extra 'forge'")

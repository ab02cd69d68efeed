"""Our own fleet server behind the same port, the real one on loopback."""

from __future__ import annotations

import pytest

from drupelet.core.errors import DrupeletError, NotFound
from drupelet.drivers.fleet import Fleet
from drupelet.drivers.http import Http
from drupelet.drivers.port import Plan, Stage, State
from tests.web.conftest import director, shop  # noqa: F401 (fixtures)
from tests.web.serving import serving
from tests.web.shop import Shop


def test_the_gate_judges_and_this_side_looks(shop: Shop) -> None:  # noqa: F811
    stages = tuple(map(Stage.parse, ("1", "100%")))
    with serving(shop) as url:
        http = Http("drupelet", url, shop.tokens["operator"])
        plan = Plan(name="r", artifact="kiosk/9.9", group="", stages=stages)
        with pytest.raises(NotFound):
            Fleet(http, plan)
        ended = Fleet(http, plan, number=1).step()
        assert ended.state in (State.COMPLETED, State.TAKEN_BACK)
        assert ended.says
        with pytest.raises(DrupeletError, match="read"):
            Fleet(Http("drupelet", url, shop.tokens["reader"]), plan, number=1).abort("no")

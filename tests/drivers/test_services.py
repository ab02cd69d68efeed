"""The contract of a service, asked of every stand-in; and how each server's bad days are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from drupelet.core.errors import BadInput, DrupeletError, NotFound, Unavailable
from drupelet.drivers.balena import Balena
from drupelet.drivers.errors import ServiceRefused, ServiceSilent, TokenRefused
from drupelet.drivers.hawkbit import Hawkbit
from drupelet.drivers.http import Http
from drupelet.drivers.mender import Mender
from drupelet.drivers.port import Answer
from tests.drivers.worlds import WORLDS, World, devices
from tests.fakes.balena_server import BalenaServer
from tests.fakes.hawkbit_server import HawkbitServer
from tests.fakes.mender_server import MenderServer


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = WORLDS[request.param](1203)  # more than two pages
    yield made
    made.server.close()


def test_it_knows_its_artifacts_and_devices(world: World) -> None:
    world.service.check(world.artifact)
    nothing = world.artifact.replace("1.2", "9.9")
    with pytest.raises(NotFound, match=r"9\.9"):
        world.service.check(nothing)
    assert world.service.devices(world.group) == tuple(devices(1203))


def test_a_deployment_reaches_its_devices_and_nobody_else(world: World) -> None:
    service, chosen = world.service, tuple(devices(3))
    deployment = service.deploy(world.artifact, chosen, name="r 1 of 3")
    assert set(service.answers(deployment, chosen).values()) <= {Answer.PENDING}
    world.succeed(chosen[0])
    answers = service.answers(deployment, chosen)
    assert answers[chosen[0]] is Answer.DONE
    assert answers.get(chosen[1], Answer.PENDING) is Answer.PENDING
    assert world.has(chosen[0]) == world.artifact
    assert world.has("dev-0500") != world.artifact
    if world.fail is not None:
        world.fail(chosen[1])
        assert service.answers(deployment, chosen)[chosen[1]] is Answer.FAILED


def test_the_same_deployment_is_not_made_twice(world: World) -> None:
    chosen = tuple(devices(2))
    first = world.service.deploy(world.artifact, chosen, name="r 1 of 3")
    before = world.deployments()
    assert world.service.deploy(world.artifact, chosen, name="r 1 of 3") == first
    assert world.deployments() == before


def test_stopping_twice_and_after_the_end_does_nothing(world: World) -> None:
    chosen = tuple(devices(1))
    deployment = world.service.deploy(world.artifact, chosen, name="r 1 of 3")
    world.succeed(chosen[0])
    for _ in range(2):
        world.service.stop(deployment)


def test_what_was_given_is_taken_back(world: World) -> None:
    chosen = tuple(devices(120))
    service = world.service
    before = world.has(chosen[0])
    deployment = service.deploy(world.artifact, chosen, name="r 1 of 3")
    for device in chosen:
        world.succeed(device)
    assert world.has(chosen[119]) == world.artifact
    service.stop(deployment)
    assert service.takes_back
    service.take_back(deployment, chosen)
    for device in chosen:
        world.succeed(device)
    assert {world.has(device) for device in chosen} == {before}


@pytest.mark.parametrize(
    ("broken", "kind", "words"),
    [
        (lambda: (500, {"error": "internal"}, {}), ServiceSilent, "answers 500: internal"),
        (lambda: (429, {"message": "slow down"}, {}), ServiceSilent, "answers 429: slow down"),
        (lambda: (403, {"error": "forbidden"}, {}), TokenRefused, "check the token"),
        (lambda: (302, None, {"Location": "http://127.0.0.1:1/"}), ServiceSilent, "leads elsewhere"),
        (lambda: (400, {"error": "no"}, {}), ServiceRefused, "answers 400: no"),
        (lambda: (200, "surprise", {}), ServiceSilent, "is this"),
        (lambda: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[", ServiceSilent, "no answer"),
        (lambda: b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>hi</html>", ServiceSilent, "is not JSON"),
    ],
)
def test_a_bad_day_of_the_server_is_one_clear_error(
    world: World, broken: object, kind: type[DrupeletError], words: str
) -> None:
    world.server.break_next = broken  # type: ignore[assignment]
    with pytest.raises(kind) as caught:
        world.service.check(world.artifact)
    assert words in caught.value.line()


def test_a_wrong_token_is_said_and_never_shown(world: World) -> None:
    with pytest.raises(TokenRefused) as caught:
        world.make("wrong-token-wrong").check(world.artifact)
    assert "wrong-token-wrong" not in caught.value.line() + repr(Http("x", "http://a", "wrong-token-wrong"))


def test_nobody_there_is_unavailable(world: World) -> None:
    service = world.service
    world.server.close()
    with pytest.raises(Unavailable):
        service.check(world.artifact)
    world.server.close = lambda: None  # type: ignore[method-assign]


def test_addresses_and_tokens_are_looked_at_before_they_are_used() -> None:
    for base, token in (("ftp://x", "t"), ("", "t"), ("http://x", "to\nken")):
        with pytest.raises(BadInput):
            Http("mender", base, token)


def test_uploads_are_streamed_and_done_once(tmp_path: Path) -> None:
    file = tmp_path / "kiosk.mender"
    file.write_bytes(bytes(range(256)) * 20_000)
    server, other = MenderServer({}, set()), HawkbitServer({}, set())
    try:
        mender = Mender(Http("mender", server.url, "secret-token"))
        mender.upload(file)
        server.break_next = lambda: (409, {"error": "exists"}, {})
        mender.upload(file)
        hawkbit = Hawkbit(Http("hawkbit", other.url, "admin:secret"))
        for _ in range(2):
            hawkbit.upload("kiosk:1.2", file)
        assert server.uploads == other.uploads == [file.read_bytes()]
        with pytest.raises(NotFound):
            mender.upload(tmp_path / "nothing")
    finally:
        server.close()
        other.close()


def test_hawkbits_approval_is_waited_for_and_said() -> None:
    server = HawkbitServer({"lab": ["a"]}, {("kiosk", "1.2")})
    try:
        service = Hawkbit(Http("hawkbit", server.url, "admin:secret"), sleep=lambda _seconds: None)
        service.deploy("kiosk:1.2", ("a",), name="r 1 of 1")
        server.rollouts[1]["status"] = "waiting_for_approval"
        with pytest.raises(ServiceSilent, match="waits for approval"):
            service.deploy("kiosk:1.2", ("a",), name="r 1 of 1")
        with pytest.raises(BadInput, match="name:version"):
            service.check("kiosk")
    finally:
        server.close()


def test_a_balena_fleet_that_tracks_the_latest_is_refused_and_pinned_devices_are_left_alone() -> None:
    server = BalenaServer("org/lab", ["a", "b"], {"1.2": 102}, runs=101)
    try:
        service = Balena(Http("balena", server.url, "secret-token"), fleet="org/lab")
        server.pins["b"] = 101
        assert service.devices("") == ("a",)
        server.fleet["should_track_latest_release"] = True
        with pytest.raises(ServiceRefused, match="tracks its latest release"):
            Balena(Http("balena", server.url, "secret-token"), fleet="org/lab").check("1.2")
        with pytest.raises(NotFound, match="no fleet"):
            Balena(Http("balena", server.url, "secret-token"), fleet="org/none").check("1.2")
        service.deploy("1.2", ("a",), name="r")
        server.report("a")
        service.finish("1.2", ("a",))
        assert (server.target("a"), server.pins["a"]) == (102, None)
    finally:
        server.close()

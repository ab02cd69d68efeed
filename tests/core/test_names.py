"""Identifiers are parsed at the door."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupelet.core.errors import BadInput, DrupeletError
from drupelet.core.names import Digest, ReleaseId, Slot, Version, device_id, name


@pytest.mark.parametrize("good", ["a", "pi-1", "kiosk.v2", "a_b", "0", "x" * 64])
def test_safe_names_pass(good: str) -> None:
    assert device_id(good) == good


@pytest.mark.parametrize(
    "bad", ["", "x" * 65, "..", "a..b", "../etc", "a/b", "A", "-a", ".a", "a b", "a\n", "ä", "a\x00b", "a%2e"]
)
def test_path_tricks_and_unsafe_names_are_refused(bad: str) -> None:
    with pytest.raises(BadInput):
        name(bad)


@pytest.mark.parametrize(("lower", "higher"), [("1.9", "1.10"), ("1.2", "1.2.1"), ("0.99", "1.0"), ("2.0.9", "2.1")])
def test_versions_compare_as_numbers(lower: str, higher: str) -> None:
    assert Version.parse(lower) < Version.parse(higher)
    assert not Version.parse(higher) < Version.parse(lower)


@pytest.mark.parametrize("bad", ["1", "1.", "01.2", "1.2.3.4", "1.2-rc1", "-1.2", "1.2 ", "v1.2", "1." + "9" * 70])
def test_other_versions_are_refused(bad: str) -> None:
    with pytest.raises(BadInput):
        Version.parse(bad)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_versions_round_trip(major: int, minor: int, patch: int) -> None:
    version = Version(major, minor, patch)
    assert Version.parse(str(version)) == version


def test_releases_are_written_two_ways() -> None:
    release = ReleaseId.parse("kiosk/1.2")
    assert (str(release), release.path) == ("kiosk 1.2", "kiosk/1.2")
    assert ReleaseId.parse("kiosk 1.2") == ReleaseId.parse("kiosk@1.2") == release


@pytest.mark.parametrize("bad", ["kiosk", "kiosk/1.2/3", "../1.2", "kiosk/latest", "/1.2"])
def test_other_releases_are_refused(bad: str) -> None:
    with pytest.raises(BadInput):
        ReleaseId.parse(bad)


@pytest.mark.parametrize("bad", ["", "sha256:", "sha256:" + "A" * 64, "md5:" + "0" * 64, "sha256:" + "0" * 63])
def test_digests_are_exact(bad: str) -> None:
    with pytest.raises(BadInput):
        Digest.parse(bad)


def test_the_other_slot() -> None:
    assert Slot.A.other is Slot.B
    assert Slot.B.other is Slot.A


def test_an_error_is_one_line_that_says_what_where_and_what_to_do() -> None:
    error = DrupeletError("cannot read\nthe file", where="/etc/x", fix="make it readable")
    assert error.line() == "/etc/x: cannot read the file; make it readable"

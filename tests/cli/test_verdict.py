"""Waiting for a verdict: what ends it, what does not, and with which words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from drupelet.cli.main import main
from drupelet.cli.verdict import Patience, await_verdict, newest_of
from drupelet.core.errors import DrupeletError, NotAllowed, NotFound, Refused, Unavailable


def view(state: str, reason: str = "because", *, number: int = 3, release: str = "kiosk/1.2") -> dict[str, Any]:
    ended = state in {"completed", "rolled_back", "halted", "aborted"}
    return {
        "id": number, "release": release, "state": state, "ended": ended, "reason": reason, "waits_for": "",
        "stage": 0, "stages": [1, 2], "verdict": None,
    }  # fmt: skip


class ScriptedFleet:
    """A fleet server that answers what it is told to, in order; the last answer stands."""

    def __init__(self, *answers: dict[str, Any] | DrupeletError) -> None:
        self._answers = list(answers)

    def get(self, path: str, **query: object) -> Any:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, DrupeletError):
            raise answer
        return {"rollout": answer}

    def pages(self, path: str, *, key: str, limit: int = 1000, **query: object) -> list[Any]:
        return [answer for answer in self._answers if isinstance(answer, dict)]


def wait(*answers: dict[str, Any] | DrupeletError, timeout_s: float = 60) -> list[str]:
    """Wait with a clock that each question moves by two seconds; return what was told."""
    now, told = [0.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    await_verdict(
        ScriptedFleet(*answers), 3, patience=Patience(timeout_s=timeout_s, clock=lambda: now[0], sleep=sleep),
        tell=lambda seen: told.append(seen["outage"] or seen["state"]),
    )  # fmt: skip
    return told


def test_a_completed_rollout_ends_it_and_only_news_is_told() -> None:
    judging = view("judging")
    assert wait(view("staging"), judging, judging, judging, view("completed")) == ["staging", "judging", "completed"]


@pytest.mark.parametrize("state", ["rolled_back", "halted", "aborted"])
def test_any_other_end_is_a_refusal_with_the_verdicts_words(state: str) -> None:
    with pytest.raises(Refused) as refused:
        wait(view("judging"), view(state, "latency is 2.1 times what it was"))
    assert refused.value.line() == f"rollout 3: kiosk/1.2 ended {state}: latency is 2.1 times what it was"
    assert refused.value.exit_code == 8


def test_a_server_that_restarts_is_waited_for() -> None:
    gone = Unavailable("the fleet server does not answer: Connection refused")
    told = wait(view("judging"), gone, gone, view("judging"), view("completed"))
    assert told == ["judging", gone.what, "judging", "completed"]


def test_a_server_that_never_answered_is_said_at_once() -> None:
    with pytest.raises(Unavailable, match="Connection refused"):
        wait(Unavailable("Connection refused"), view("completed"))


def test_a_token_that_ends_meanwhile_is_said_at_once() -> None:
    with pytest.raises(NotAllowed):
        wait(view("judging"), NotAllowed("the token has expired"), view("completed"))


def test_time_is_up_with_the_last_that_was_known() -> None:
    with pytest.raises(Unavailable, match=r"no verdict after 10 s: judging, stage 1 of 2: because.*rollout wait 3"):
        wait(view("judging"), timeout_s=10)


def test_an_outage_does_not_outlast_the_time() -> None:
    with pytest.raises(Unavailable, match="no verdict after 10 s: Connection refused"):
        wait(view("judging"), Unavailable("Connection refused"), timeout_s=10)


def test_a_release_names_its_newest_rollout() -> None:
    fleet = ScriptedFleet(view("judging", number=9, release="kiosk/1.3"), view("judging", number=8))
    assert newest_of(fleet, "kiosk/1.2") == 8
    with pytest.raises(NotFound, match=r"no rollout of kiosk/2\.0"):
        newest_of(fleet, "kiosk/2.0")


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DRUPELET_SERVER", "http://127.0.0.1:9")
    monkeypatch.setenv("DRUPELET_TOKEN", "drup_secret")
    return


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("wait", "3"), 6, "does not answer: Connection refused"),
        (("wait", "kiosk/1.2"), 6, "does not answer: Connection refused"),
        (("wait", "nonsense"), 2, "family/version"),
        (("wait", "3", "--timeout", "-1"), 2, "--timeout"),
    ],
)
def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, says: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["rollout", *words])
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (code, 1)
    assert says in said
    assert "drup_secret" not in said

"""How an operator on the device reaches the agent, with no server and no open port: files in `requests/`.

`<id>.json` asks, `<id>.answer.json` answers. Who may write the state folder may ask; that is root and the agent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from drupelet.agent import events as e
from drupelet.agent import orders
from drupelet.agent.model import DeviceState
from drupelet.core.errors import BadInput, NotFound
from drupelet.core.states import Reason
from drupelet.durable import Disk
from drupelet.wire.codec import Message, decode, encode
from drupelet.wire.fields import Sentence

_ANSWER = ".answer.json"


class LocalRequest(Message, frozen=True, kw_only=True):
    """What an operator on the device wants."""

    FORMAT: ClassVar[str] = "drupelet.request/1"
    BYTES_MAX: ClassVar[int] = 8 * 1024

    format: str = "drupelet.request/1"
    verb: Literal["rollback", "hold", "release"]
    said: Annotated[str, Meta(max_length=500)] = ""


class LocalAnswer(Message, frozen=True, kw_only=True):
    """Whether it was accepted, and why not."""

    FORMAT: ClassVar[str] = "drupelet.answer/1"
    BYTES_MAX: ClassVar[int] = 8 * 1024

    format: str = "drupelet.answer/1"
    accepted: bool
    reason: Reason = Reason.NONE
    detail: Sentence = ""


def event_for(state: DeviceState, request: LocalRequest) -> e.AnyEvent | LocalAnswer:
    """Return what the request does, or the answer that nothing is done. Pure."""
    if request.verb in ("hold", "release"):
        held = request.verb == "hold"
        if state.held == held:
            return LocalAnswer(accepted=True, detail="it was so already")
        return e.HoldSet(reason=Reason.HELD if held else Reason.NONE, detail=request.said, held=held)
    said = request.said or "an operator on the device asked for it"
    event = orders.rollback(state, said=said)
    if event is None:
        detail = "the other slot holds no release that was good and is not condemned"
        return LocalAnswer(accepted=False, reason=Reason.NO_OTHER_SLOT, detail=detail)
    return event


def waiting(disk: Disk, folder: Path) -> Iterator[tuple[str, LocalRequest | LocalAnswer]]:
    """Yield the requests that wait, by id; one that cannot be read is its own refusal."""
    for name in disk.names(folder):
        if not name.endswith(".json") or name.endswith(_ANSWER):
            continue
        key = name.removesuffix(".json")
        try:
            data = disk.read(folder / name, bytes_max=LocalRequest.BYTES_MAX)
            yield key, decode(LocalRequest, data, where=name)
        except NotFound:
            continue
        except BadInput as error:
            yield key, LocalAnswer(accepted=False, detail=error.line()[:1000])


def answer(disk: Disk, folder: Path, key: str, said: LocalAnswer) -> None:
    """Answer a request and take it away."""
    disk.replace(folder / f"{key}{_ANSWER}", encode(said))
    disk.remove(folder / f"{key}.json")


def ask(disk: Disk, folder: Path, key: str, request: LocalRequest) -> None:
    """Put a request where the agent finds it."""
    disk.replace(folder / f"{key}.json", encode(request))


def answered(disk: Disk, folder: Path, key: str) -> LocalAnswer | None:
    """Return and forget the answer to a request, None while there is none."""
    path = folder / f"{key}{_ANSWER}"
    try:
        data = disk.read(path, bytes_max=LocalAnswer.BYTES_MAX)
    except NotFound:
        return None
    disk.remove(path)
    return decode(LocalAnswer, data, where=str(path))


def withdraw(disk: Disk, folder: Path, key: str) -> None:
    """Take back a request that nobody answered."""
    disk.remove(folder / f"{key}.json")

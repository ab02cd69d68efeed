"""Asking an inference child: health, tokens, templates, answers. Blocking, over its Unix socket, one connection a call.

The gateway streams through its own asynchronous client; this one serves readiness, trials and the forge.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from drupelet.engine.spec import Address, EngineAnswered, EngineUnreachable

BODY_BYTES_MAX = 16 << 20
"""An answer larger than this is not an answer; logits travel another way."""
_LINE_BYTES_MAX = 1 << 20


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        super().__init__("engine", timeout=timeout_s)
        self._path = str(address.socket)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer with its costs, as the child and this client measured them."""

    text: str
    finish: str
    """`stop`, or `length` when the token limit cut it."""
    prompt_tokens: int
    tokens: int
    ttft_ms: float
    """From sending the request to the first piece of text."""
    duration_ms: float
    decode_ms: float
    """The child's own time for the answer's tokens, without the prompt; 0 for a single token."""


class EngineClient:
    """Blocking calls to one child. Raises `EngineUnreachable` and `EngineAnswered`, nothing else."""

    def __init__(self, address: Address, *, timeout_ms: int = 60_000) -> None:
        self.address = address
        self._timeout_s = timeout_ms / 1000

    @contextmanager
    def _call(self, method: str, path: str, body: Mapping[str, Any] | None) -> Iterator[http.client.HTTPResponse]:
        connection = _UnixConnection(self.address, self._timeout_s)
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, body=data, headers={"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                raise _answered(response.status, response.read(BODY_BYTES_MAX), f"{self.address}{path}")
            yield response
        except TimeoutError as error:
            what = f"no answer within {self._timeout_s:g} s"
            raise EngineUnreachable(what, where=f"{self.address}{path}") from error
        except (OSError, http.client.HTTPException) as error:
            raise EngineUnreachable(f"no answer: {error}", where=f"{self.address}{path}") from error
        finally:
            connection.close()

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        with self._call(method, path, body) as response:
            data = response.read(BODY_BYTES_MAX + 1)
        if len(data) > BODY_BYTES_MAX:
            raise EngineUnreachable(f"more than {BODY_BYTES_MAX} bytes", where=f"{self.address}{path}")
        return _parsed(data, f"{self.address}{path}")

    def health(self) -> None:
        """Return if the child answers that it is well."""
        self._json("GET", "/health")

    def warm_up(self) -> None:
        """Make one token, so that the first real request finds everything allocated."""
        self._json("POST", "/completion", {"prompt": "a", "n_predict": 1, "cache_prompt": False})

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON answer to `body` at any of llama.cpp's endpoints."""
        return self._json("POST", path, body)

    def props(self) -> dict[str, Any]:
        """Return what the child says of its model: `bos_token`, `eos_token`, `chat_template` and more."""
        found = self._json("GET", "/props")
        return found if isinstance(found, dict) else {}

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Return the tokens of `text`, with the beginning-of-text token and markers parsed if `special`."""
        body = {"content": text, "add_special": special, "parse_special": special}
        return [int(token) for token in self._json("POST", "/tokenize", body)["tokens"]]

    def apply_template(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the text that the model's chat template makes of `messages` (`role`, `content`)."""
        return str(self._json("POST", "/apply-template", {"messages": list(messages)})["prompt"])

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        tokens_max: int,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> Answer:
        """Return one whole answer, streamed so that the time to the first token is known. Nothing is cached."""
        body = {
            "messages": list(messages),
            "max_tokens": tokens_max,
            "temperature": temperature,
            "seed": seed,
            "stop": list(stop),
            "stream": True,
            "stream_options": {"include_usage": True},
            "cache_prompt": False,
        }
        begun = time.perf_counter()
        first: float | None = None
        text: list[str] = []
        finish = ""
        usage: dict[str, Any] = {}
        timings: dict[str, Any] = {}
        with self._call("POST", "/v1/chat/completions", body) as response:
            for event in _events(response, str(self.address)):
                for choice in event.get("choices", ()):
                    piece = choice.get("delta", {}).get("content")
                    if piece:
                        first = first if first is not None else time.perf_counter()
                        text.append(piece)
                    finish = choice.get("finish_reason") or finish
                usage = event.get("usage") or usage
                timings = event.get("timings") or timings
        ended = time.perf_counter()
        return Answer(
            text="".join(text),
            finish=finish,
            prompt_tokens=int(usage.get("prompt_tokens", 0)),
            tokens=int(usage.get("completion_tokens", 0)),
            ttft_ms=((first if first is not None else ended) - begun) * 1000,
            duration_ms=(ended - begun) * 1000,
            decode_ms=float(timings.get("predicted_ms", 0.0)),
        )


def _events(response: http.client.HTTPResponse, where: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON of each server-sent event until `[DONE]`."""
    while line := response.readline(_LINE_BYTES_MAX):
        if not line.startswith(b"data: "):
            continue
        data = line[6:].strip()
        if data == b"[DONE]":
            return
        event = _parsed(data, where)
        if "error" in event:
            raise _answered(int(event["error"].get("code", 500)), data, where)
        yield event
    raise EngineUnreachable("the answer broke off", where=where)


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise EngineUnreachable("the answer is not JSON", where=where) from error


def _answered(status: int, data: bytes, where: str) -> EngineAnswered:
    try:
        said = json.loads(data)["error"]
        what, kind = str(said["message"]), str(said.get("type", ""))
    except (ValueError, KeyError, TypeError):
        what, kind = f"HTTP status {status}", ""
    return EngineAnswered(what, status=status, kind=kind, where=where)

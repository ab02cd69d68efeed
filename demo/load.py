"""The load generator: asks every device shop questions at a steady rate and counts what came back."""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ANSWER_S_MAX = 20.0


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the words a right answer contains."""

    text: str
    expects: tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """What one device answered."""

    asked: int = 0
    failed: int = 0
    right: int = 0
    releases: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


def read_questions(path: Path) -> list[Question]:
    """The load questions of the kiosk model."""
    entries = json.loads(path.read_text())["load"]
    return [Question(e["question"], tuple(e["expect"])) for e in entries]


class Load:
    """One asking thread a device."""

    def __init__(self, questions: list[Question], *, per_second: float, seed: int) -> None:
        self._questions = questions
        self._interval_s = 1.0 / per_second
        self._seed = seed
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.tallies: dict[str, Tally] = {}

    def add(self, device: str, base_url: str) -> None:
        """Begin to ask a device."""
        self.tallies[device] = Tally()
        name = f"load-{device}"
        thread = threading.Thread(target=self._ask_on, args=(device, base_url), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join(ANSWER_S_MAX)

    def totals(self) -> Tally:
        """All devices together, now."""
        total = Tally()
        with self._lock:
            for tally in self.tallies.values():
                total.asked += tally.asked
                total.failed += tally.failed
                total.right += tally.right
                total.releases += tally.releases
                total.failures += tally.failures
                total.slowest_s = max(total.slowest_s, tally.slowest_s)
        return total

    def _ask_on(self, device: str, base_url: str) -> None:
        draw = random.Random(f"{self._seed}-{device}")
        due = time.monotonic() + draw.random() * self._interval_s
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._interval_s, time.monotonic() - self._interval_s)
            self._ask(device, base_url, draw.choice(self._questions))

    def _ask(self, device: str, base_url: str, question: Question) -> None:
        began = time.monotonic()
        failure, release, text = "", "", ""
        try:
            text, release = ask(base_url, question.text)
        except (OSError, ValueError, KeyError) as error:
            failure = f"{device}: {type(error).__name__}: {error}"
        took = time.monotonic() - began
        right = all(words.lower() in text.lower() for words in question.expects)
        with self._lock:
            tally = self.tallies[device]
            tally.asked += 1
            tally.slowest_s = max(tally.slowest_s, took)
            if failure:
                tally.failed += 1
                tally.failures.append(failure)
            else:
                tally.releases[release] += 1
                tally.right += right


def ask(base_url: str, question: str) -> tuple[str, str]:
    """Ask one question; return the answer and the release that gave it."""
    body = json.dumps(
        {"model": "kiosk", "temperature": 0, "max_tokens": 48, "messages": [{"role": "user", "content": question}]}
    )
    request = urllib.request.Request(  # noqa: S310 (loopback http)
        f"{base_url}/v1/chat/completions", data=body.encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ANSWER_S_MAX) as reply:  # noqa: S310
        answer = json.load(reply)
        release = reply.headers.get("X-Drupelet-Release", "")
    return str(answer["choices"][0]["message"]["content"]), release

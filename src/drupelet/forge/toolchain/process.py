"""Running somebody else's program: its output to a log and to a reader, its end always ours to decide.

A program gets a process group of its own. Whatever ends the wait (Ctrl-C, an error of ours) ends the group first, so
that no compiler works on after the forge has gone.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from drupelet.forge.toolchain.venvs import ToolFailed

_GRACE_S = 10
"""Between SIGTERM and SIGKILL."""
_KEPT_LINES = 40
_LINE_BYTES_MAX = 8_192
_SAID_CHARACTERS_MAX = 300
_ECHO = re.compile(r"failed to quantize model from")
"""Says only that the line before it was said."""
_COMPLAINT = re.compile(r"error|failed|exception|abort|refus|cannot|not supported|no space", re.IGNORECASE)


def run(
    command: Sequence[str | Path],
    *,
    log: Path,
    doing: str,
    fix: str = "see the log",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda _line: None,
) -> None:
    """Run `command` to its end, adding all it prints to `log` and giving each line to `on_line`.

    A line ends with a line feed or a carriage return. Raises `ToolFailed` with its last words unless it exits with 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    with log.open("ab") as out:
        out.write(f"$ {' '.join(map(str, command))}\n".encode())
        try:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=None if environment is None else dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            raise ToolFailed(f"{doing} cannot start: {error.strerror}", where=str(command[0]), fix=fix) from error
        try:
            _drain(process, out.write, last, on_line)
            code = process.wait()
        except BaseException:
            _end(process)
            raise
    if code != 0:
        raise ToolFailed(f"{doing} failed: {last_words(last) or f'exit status {code}'}", where=str(log), fix=fix)


def last_words(lines: Sequence[str]) -> str:
    """Return the line that says best why a program ended: the last one that complains, or else the last one."""
    said = [line.strip() for line in lines if line.strip()]
    complaints = [line for line in said if _COMPLAINT.search(line) and not _ECHO.search(line)]
    return " ".join((complaints or said or [""])[-1].split())[:_SAID_CHARACTERS_MAX]


def _drain(
    process: subprocess.Popen[bytes],
    keep: Callable[[bytes], object],
    last: deque[str],
    on_line: Callable[[str], None],
) -> None:
    stream = process.stdout
    if stream is None:
        raise TypeError("the program's output must be piped")
    with stream:
        held = b""
        while data := os.read(stream.fileno(), 1 << 16):
            keep(data)
            *lines, held = re.split(rb"[\r\n]", held + data)
            held = held[-_LINE_BYTES_MAX:]
            for line in lines:
                text = line[:_LINE_BYTES_MAX].decode("utf-8", errors="replace")
                last.append(text)
                on_line(text)
        if held:
            last.append(held.decode("utf-8", errors="replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole group, gently first."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

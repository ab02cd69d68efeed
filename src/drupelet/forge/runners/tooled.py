"""Files of other formats, run by their own runtime in a tool environment, behind a line of JSON at a time.

The script in the environment answers what `toolscripts/wireline.py` says. This side starts it, bounds every wait and
every line, and ends its whole process group, whatever happens. A bundle is unpacked beside the model for as long as the
session lasts.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from drupelet.core.errors import BadInput, DrupeletError
from drupelet.core.states import ExitReason
from drupelet.durable import PosixDisk
from drupelet.durable.port import hash_file
from drupelet.engine.client import Answer
from drupelet.engine.logits import SEQUENCE_TOKENS_MAX, Logits
from drupelet.engine.spec import EngineAnswered, EngineUnreachable, Exit, StartFailed
from drupelet.forge.bundle import BundleBad, unpack
from drupelet.forge.formats.tooled import environment, script
from drupelet.forge.runners.port import Messages, RunSpec, SpecialTokens
from drupelet.forge.toolchain.process import last_words
from drupelet.forge.toolchain.venvs import ToolVenv, cache_folder

START_MS_MAX = 300_000
"""Importing a runtime takes seconds; packing the weights of a large model takes minutes."""
ANSWER_MS_MAX = 600_000
LOGITS_MS_MAX = 1_800_000
"""As long as for GGUF: see `engine.logits`."""
STOP_MS_MAX = 5_000
LINE_BYTES_MAX = 16 << 20
_SAID_BYTES = 8_192
_STATUS = {"exceed_context_size_error": 400}


class ToolSession:
    """Implements `Session`."""

    def __init__(self, spec: RunSpec, *, python: Path, script_name: str, single: str, runtime_folder: Path) -> None:
        begun = time.monotonic()
        self._folder = Path(tempfile.mkdtemp(prefix=".running-", dir=spec.model.parent))
        self._log = self._folder / "log"
        self._peak_bytes = 0
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = self._start(spec, python, script_name, single=single, runtime_folder=runtime_folder)
            self._lines = _Lines(self._process)
            self._lines.read(START_MS_MAX)
        except EngineUnreachable as error:
            ended = Exit(reason=ExitReason.LOAD_FAILED, words=f"could not load the model: {self._said() or error.what}")
            self.close()
            raise StartFailed(ended, where=str(spec.model)) from error
        except BaseException:
            self.close()
            raise
        self.start_ms = (time.monotonic() - begun) * 1000

    def _start(
        self, spec: RunSpec, python: Path, script_name: str, *, single: str, runtime_folder: Path
    ) -> subprocess.Popen[bytes]:
        if spec.digest is not None and hash_file(PosixDisk(), spec.model)[0] != spec.digest:
            ended = Exit(reason=ExitReason.LOAD_FAILED, words="the file is not the one that was asked for")
            raise StartFailed(ended, where=str(spec.model))
        model = self._folder / (single or "model")
        try:
            if single:
                model.symlink_to(spec.model.absolute())
            else:
                unpack(spec.model, model)
        except (BundleBad, OSError) as error:
            words = error.what if isinstance(error, BundleBad) else str(error.strerror)
            ended = Exit(reason=ExitReason.LOAD_FAILED, words=f"could not be unpacked: {words}")
            raise StartFailed(ended, where=str(spec.model)) from error
        command = [python, "-s", script(script_name), model, str(spec.context_tokens), str(spec.threads)]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=runtime_folder,
                env=environment(self._folder / "home"),
                start_new_session=True,
            )

    def ask(self, messages: Messages, *, tokens_max: int) -> Answer:
        """Ask the script, which answers greedily."""
        said = self._do("ask", ANSWER_MS_MAX, messages=[dict(turn) for turn in messages], tokens_max=tokens_max)
        return Answer(**said)

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Ask the runtime's own tokenizer."""
        return [int(token) for token in self._do("tokenize", ANSWER_MS_MAX, text=text, special=special)]

    def render(self, messages: Messages) -> str:
        """Ask the runtime what it makes of a conversation."""
        return str(self._do("render", ANSWER_MS_MAX, messages=[dict(turn) for turn in messages]))

    def special_tokens(self) -> SpecialTokens:
        """Ask what the file says of itself."""
        return SpecialTokens(**self._do("special_tokens", ANSWER_MS_MAX))

    def logits(self, sequences: Sequence[Sequence[int]], out: Path) -> Logits:
        """Have the script write the logits of every position."""
        said = self._do("logits", LOGITS_MS_MAX, sequences=[list(one) for one in sequences], out=str(out))
        return Logits(path=out, lengths=tuple(said["lengths"]), vocab=int(said["vocab"]))

    def memory_bytes_peak(self) -> int:
        """Read the kernel's own high-water mark of the runtime's process."""
        if self._process is not None:
            with suppress(OSError):
                for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        self._peak_bytes = max(self._peak_bytes, int(line.split()[1]) * 1024)
        return self._peak_bytes

    def close(self) -> None:
        """End the process and remove what was unpacked."""
        if self._process is not None and self._process.poll() is None:
            self.memory_bytes_peak()
            _end(self._process)
        if self._process is not None:
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, name: str, limit_ms: int, **given: Any) -> Any:
        self._lines.write({"do": name, "with": given})
        try:
            reply = self._lines.read(limit_ms)
        except EngineUnreachable as error:
            raise EngineUnreachable(f"{error.what}: {self._said()}", where=name) from error
        if "error" in reply:
            kind = str(reply.get("kind", "server_error"))
            raise EngineAnswered(str(reply["error"])[:500], status=_STATUS.get(kind, 500), kind=kind, where=name)
        return reply["answer"]

    def _said(self) -> str:
        with suppress(OSError):
            return last_words(self._log.read_bytes()[-_SAID_BYTES:].decode("utf-8", "replace").splitlines())
        return ""


class _Lines:
    """Lines of JSON to and from a process, none of them too long or too late."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is None or process.stdout is None:
            raise TypeError("both ends must be piped")
        self._in, self._out, self._held = process.stdin, process.stdout, b""

    def write(self, value: dict[str, Any]) -> None:
        try:
            self._in.write(json.dumps(value).encode() + b"\n")
            self._in.flush()
        except OSError as error:
            raise EngineUnreachable("the runtime has ended") from error

    def read(self, limit_ms: int) -> dict[str, Any]:
        until = time.monotonic() + limit_ms / 1000
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while b"\n" not in self._held:
                if len(self._held) > LINE_BYTES_MAX:
                    raise EngineUnreachable(f"the runtime says more than {LINE_BYTES_MAX} bytes at once")
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise EngineUnreachable(f"the runtime says nothing for {limit_ms} ms")
                data = os.read(self._out.fileno(), 1 << 16)
                if not data:
                    raise EngineUnreachable("the runtime has ended")
                self._held += data
        line, _, self._held = self._held.partition(b"\n")
        try:
            said = json.loads(line)
        except ValueError as error:
            raise EngineUnreachable("the runtime says what is no JSON") from error
        if not isinstance(said, dict):
            raise EngineUnreachable("the runtime says what is no object")
        return said


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()  # the script ends when its questions do
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_MS_MAX / 1000)
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRunner:
    """Implements `Runner`."""

    file_format: str
    venv: ToolVenv
    script: str
    runtime: str
    """The requirement that does the running, without its version."""
    single: str = ""
    """The name that the runtime wants its one file to have; empty where it wants a folder, which is a bundle here."""

    @property
    def tool(self) -> str:
        """The runtime and its version."""
        return next(asked for asked in self.venv.requirements if asked.startswith(f"{self.runtime}==")).replace(
            "==", " "
        )

    def start(self, spec: RunSpec, *, runtime_folder: Path) -> ToolSession:
        """Start the runtime. Raises `ToolMissing` where it is not installed."""
        if spec.adapters:
            raise BadInput("this runner applies no adapters", where=str(spec.model), fix="merge them into the model")
        python = self.venv.python(cache_folder())
        return ToolSession(
            spec, python=python, script_name=self.script, single=self.single, runtime_folder=runtime_folder
        )

    def logits(self, spec: RunSpec, sequences: Sequence[Sequence[int]], out: Path) -> Logits:
        """Start the runtime for them alone."""
        for index, sequence in enumerate(sequences):
            if not 1 <= len(sequence) <= SEQUENCE_TOKENS_MAX:
                fix = f"use 1 to {SEQUENCE_TOKENS_MAX}"
                raise BadInput(
                    f"evaluation text {index + 1} has {len(sequence)} tokens", where=str(spec.model), fix=fix
                )
        with self.start(spec, runtime_folder=out.parent) as session:
            try:
                return session.logits(sequences, out)
            except DrupeletError as error:
                ended = Exit(reason=ExitReason.EXITED, words=f"it gives no logits: {error.what}")
                raise StartFailed(ended, where=str(spec.model)) from error

"""llama.cpp's tools, run as programs: implements `port.Toolchain`.

Determinism. A converter takes names from the folder it reads and a quantizer writes the path of the importance matrix
into the model; so each run gets a scratch folder in which everything has the same short name every time, and works
there. The converter sees only the files that belong to the checkpoint: no code that came with it, no pickle, no model
card; and no network, whatever a config asks for.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drupelet.core.names import Digest
from drupelet.forge.toolchain.llamacpp import Installed
from drupelet.forge.toolchain.port import Percent
from drupelet.forge.toolchain.process import run
from drupelet.forge.toolchain.venvs import ToolFailed

_PERCENT = re.compile(r"Writing:\s+(\d{1,3})%")
_TENSOR = re.compile(r"^\[\s*(\d+)/\s*(\d+)\]")
_FALLBACK = re.compile(r"WARNING: (\d+) of (\d+) tensor\(s\) required fallback quantization")
_UNFIT = re.compile(r"ncols\s+(\d+) not divisible by\s+(\d+)")
_NO_NETWORK = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "LC_ALL": "C.UTF-8",
}


def _nobody(_percent: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """The tools of one installed toolchain. `logs` is where the output of those that fail is kept."""

    installed: Installed
    logs: Path
    threads: int = 0
    """For the compiled programs; 0: as many as processors. The bytes do not depend on it."""

    @property
    def version(self) -> str:
        """As the port says."""
        return self.installed.version

    @property
    def converter_digest(self) -> Digest:
        """As the port says."""
        return self.installed.converter_digest

    def program_digest(self, program: str) -> Digest:
        """As the port says."""
        self.installed.program(program)
        return self.installed.program_digests[program]

    def convert(
        self, files: tuple[Path, ...], out: Path, *, kind: str, model_name: str, percent: Percent = _nobody
    ) -> None:
        """As the port says."""
        with self._scratch("convert") as (scratch, log):
            model = _staged(files, scratch / "model")

            def on_line(line: str) -> None:
                if found := _PERCENT.search(line):
                    percent(int(found[1]))

            run(
                [
                    *(self.installed.python, "-s", self.installed.source / "convert_hf_to_gguf.py", model.name),
                    *("--outfile", out.absolute(), "--outtype", kind, "--model-name", model_name),
                ],
                log=log,
                doing="llama.cpp's converter",
                fix="the whole output is in that file; llama.cpp may not know this model",
                cwd=scratch,
                environment=_environment(scratch),
                on_line=on_line,
            )

    def quantize(
        self,
        source: Path,
        out: Path,
        *,
        quantization: str,
        importance: Path | None = None,
        percent: Percent = _nobody,
    ) -> tuple[str, ...]:
        """As the port says."""
        notes: list[str] = []
        unfit: list[tuple[str, str]] = []

        def on_line(line: str) -> None:
            if found := _TENSOR.match(line):
                percent(100 * (int(found[1]) - 1) // int(found[2]))
            elif found := _UNFIT.search(line):
                unfit.append((found[1], found[2]))
            elif found := _FALLBACK.search(line):
                columns, block = unfit[-1] if unfit else ("", "256")
                notes.append(
                    f"{found[1]} of {found[2]} tensors are kept in a larger type than {quantization}: their rows"
                    f"{' of ' + columns if columns else ''} do not divide by {block}"
                )

        with self._scratch("quantize") as (scratch, log):
            chosen: list[str] = []
            if importance is not None:
                # Its path is written into the model.
                (scratch / "calibration.gguf").symlink_to(importance.absolute())
                chosen = ["--imatrix", "calibration.gguf"]
            command: list[str | Path] = [
                self.installed.program("llama-quantize"),
                *chosen,
                source.absolute(),
                out.absolute(),  # a name that begins with a digit would be taken for a type
                quantization.upper(),
            ]
            if self.threads:
                command.append(str(self.threads))
            run(command, log=log, doing=f"quantizing to {quantization}", cwd=scratch, on_line=on_line)
        return tuple(notes)

    def importance(self, model: Path, text: Path, out: Path, *, context_tokens: int, chunks: int) -> None:
        """As the port says."""
        with self._scratch("imatrix") as (scratch, log):
            (scratch / "calibration.txt").symlink_to(text.absolute())
            size = str(context_tokens)
            threads = str(self.threads or os.cpu_count() or 1)
            run(
                [
                    *(self.installed.program("llama-imatrix"), "-m", model.absolute(), "-f", "calibration.txt"),
                    *("-o", "importance.gguf", "-c", size, "-b", size, "--chunks", str(chunks or -1)),
                    *("--no-ppl", "-t", threads, "-ngl", "0"),
                ],
                log=log,
                doing="computing the importance matrix",
                fix="give a longer calibration text, or fewer calibration.context_tokens",
                cwd=scratch,
            )
            if not (scratch / "importance.gguf").exists():
                raise ToolFailed("llama-imatrix wrote nothing", where=str(log), fix="see the log")
            shutil.move(scratch / "importance.gguf", out)

    def convert_adapter(self, adapter: Path, base: tuple[Path, ...], out: Path) -> None:
        """As the port says."""
        with self._scratch("adapter") as (scratch, log):
            files = tuple(adapter / name for name in ("adapter_config.json", "adapter_model.safetensors"))
            run(
                [
                    *(self.installed.python, "-s", self.installed.source / "convert_lora_to_gguf.py"),
                    *("--base", _staged(base, scratch / "model").name, "--outfile", out.absolute(), "--outtype", "f16"),
                    _staged(files, scratch / "adapter").name,
                ],
                log=log,
                doing="llama.cpp's LoRA converter",
                fix="the whole output is in that file",
                cwd=scratch,
                environment=_environment(scratch),
            )

    @contextmanager
    def _scratch(self, doing: str) -> Iterator[tuple[Path, Path]]:
        """Give a scratch folder and a log; the log is kept only if what is done there fails."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{doing}.log"
        log.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix="drupelet-forge-") as name:
            yield Path(name), log
        log.unlink(missing_ok=True)


def _staged(files: tuple[Path, ...], folder: Path) -> Path:
    """Return a folder with links to exactly these files."""
    folder.mkdir()
    for path in files:
        (folder / path.name).symlink_to(path.absolute())
    return folder


def _environment(scratch: Path) -> dict[str, str]:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_", "NO_LOCAL"))
    }
    return {**inherited, **_NO_NETWORK, "HF_HOME": str(scratch / "hf")}

"""The inference child: `python -m drupelet.engine.serve JSON`, started and watched by `child.Child`.

There are two kinds. Without a `server` the library `xllamacpp` is loaded into this process. With one, this process
prepares itself, checks the model and then *becomes* that `llama-server` (execve(2)): same process id, same limits, same
parent to die with, the same open model file, and no Python left in memory.

It promises its parent three things. It says what became of the load in one JSON line on its standard output and nothing
else there; a `llama-server` says nothing, and that pipe closes when it takes over. It dies when its parent dies. It
ends on SIGTERM, the library at once: the parent has let requests finish by then, and native destructors, which may
hang, are not run; a `llama-server` that hangs in its own is killed.

Prompts must never reach a log or a core file: llama.cpp's log level stays at warnings, core dumps are off, and the
parent keeps only what is said before the model is ready.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

LOAD_FAILED_STATUS = 70
"""Exit status after a `failed` line."""
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_LOG_LEVEL_WARNINGS = 2
_READ_BYTES = 1 << 20
_NOT_HANDED_ON = ("LLAMA_", "GGML_", "HF_")
"""Variables that would add to what the command line says, or load other code."""
HTTP_THREADS_SPARE = 4
"""Beside one a stream: for health, tokenize and a late cancel."""
_OOM_SCORE = 500
"""Of -1000..1000: when memory runs out, the kernel takes this process and not the gateway."""


def report(descriptor: int, message: dict[str, Any]) -> None:
    """Write one JSON line for the parent."""
    os.write(descriptor, json.dumps(message).encode() + b"\n")


def fail(descriptor: int, words: str) -> NoReturn:
    """Tell the parent why the model could not be loaded, and end."""
    report(descriptor, {"event": "failed", "words": words})
    os._exit(LOAD_FAILED_STATUS)


def bind_to_parent(parent_pid: int) -> None:
    """Ask the kernel for SIGKILL when the parent dies, and end now if it died already (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    libc.prctl(_PR_SET_NAME, b"drupelet-engine", 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(0)


def limit_self(nice: int) -> None:
    """Lower priority, no core dumps, first in line when memory runs out."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if nice:
        os.nice(nice)
    try:
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE), encoding="ascii")
    except OSError:
        return  # a container may forbid it; the memory watch of the parent still holds


def check_digest(descriptor: int, digest: str) -> str | None:
    """Return why the open model file is not the one that was signed, or None if it is."""
    hashing = hashlib.sha256()
    while data := os.read(descriptor, _READ_BYTES):
        hashing.update(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    found = f"sha256:{hashing.hexdigest()}"
    return None if found == digest else f"the model file's digest is {found}, not {digest}"


def serve(spec: dict[str, Any], out: int) -> None:
    """Load the model, listen on the socket, report, and wait to be stopped."""
    try:
        model = os.open(spec["model"], os.O_RDONLY)
    except OSError as error:
        fail(out, f"cannot open the model: {os.strerror(error.errno or 0)}")
    if spec["digest"] is not None and (why := check_digest(model, spec["digest"])) is not None:
        fail(out, why)
    # llama.cpp opens the descriptor that was hashed, not a name that may have been replaced meanwhile.
    path = f"/proc/self/fd/{model}"
    if spec["server"] is not None:
        os.set_inheritable(model, True)
        become(spec["server"], server_arguments(spec, path), out)
    serve_library(spec, path, out)


def server_arguments(spec: dict[str, Any], model: str) -> list[str]:
    """Return the command line that makes a `llama-server` do what the library is told in `serve_library`."""
    return [
        *("llama-server", "--model", model, "--alias", spec["alias"]),
        *("--host", spec["socket"], "--port", "0"),
        *("--ctx-size", str(spec["context_tokens"] * spec["parallel"]), "--parallel", str(spec["parallel"])),
        *("--threads", str(spec["threads"]), "--threads-batch", str(spec["threads"])),
        *("--threads-http", str(spec["parallel"] + HTTP_THREADS_SPARE)),
        *("--n-gpu-layers", "0", "--no-warmup", "--no-ui", "--offline", "--cache-ram", "0"),
        *(word for path in spec["adapters"] for word in ("--lora", path)),
        *("--log-verbosity", str(_LOG_LEVEL_WARNINGS), "--log-colors", "off"),
    ]


def become(program: str, arguments: list[str], out: int) -> NoReturn:
    """Replace this process by `program`; `out` closes by itself when that succeeds."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_HANDED_ON)}
    try:
        os.execve(program, arguments, environment)  # noqa: S606 (the program is the operator's setting)
    except OSError as error:
        fail(out, f"cannot run {program}: {os.strerror(error.errno or 0)}")


def _adapter(library: Any, path: str) -> Any:
    info = library.CommonAdapterLoraInfo()
    info.path, info.scale = path, 1.0
    return info


def serve_library(spec: dict[str, Any], path: str, out: int) -> NoReturn:
    """Serve with the library inside this process."""
    try:
        import xllamacpp
    except ImportError as error:
        fail(out, f"the inference library cannot be loaded, and no llama-server was named: {error}")
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = [spec["alias"]] if isinstance(params.model_alias, (list, set)) else spec["alias"]
    params.hostnames = [spec["socket"]]
    params.port = 0
    params.n_ctx = spec["context_tokens"] * spec["parallel"]
    params.n_parallel = spec["parallel"]
    params.cpuparams.n_threads = spec["threads"]
    params.cpuparams_batch.n_threads = spec["threads"]
    params.n_threads_http = spec["parallel"] + HTTP_THREADS_SPARE
    params.n_gpu_layers = 0
    params.lora_adapters = [_adapter(xllamacpp, path) for path in spec["adapters"]]
    params.warmup = False  # the parent's first request is the warm-up
    params.ui = False
    params.offline = True
    params.cache_ram_mib = 0  # no prompt is kept beyond its slot
    params.verbosity = _LOG_LEVEL_WARNINGS
    try:
        # The name must stay bound: a dropped server stops answering.
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        fail(out, f"llama.cpp could not load the model: {error}")
    report(out, {"event": "listening", "pid": os.getpid(), "address": server.listening_address})
    while True:
        signal.pause()


def main() -> None:
    """Read the spec from the command line and serve it."""
    spec = json.loads(sys.argv[1])
    out = os.dup(1)
    os.dup2(2, 1)  # whatever native code prints must not look like a report
    bind_to_parent(spec["parent_pid"])
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which drains first
    os.umask(0o077)
    limit_self(spec["nice"])
    serve(spec, out)


if __name__ == "__main__":
    main()

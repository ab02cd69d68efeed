"""Building the toolchain: whole or not there, whatever happens on the way. Nothing is compiled; see fake_compilers."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from drupelet.cli.main import build as cli
from drupelet.core.errors import BadInput, DrupeletError, NotFound
from drupelet.durable import PosixDisk
from drupelet.durable.port import DiskFull, Locked
from drupelet.forge.toolchain import native, source
from drupelet.forge.toolchain.llamacpp import LlamaCpp
from drupelet.forge.toolchain.process import last_words, run
from drupelet.forge.toolchain.source import SourceUntrusted, unpack
from drupelet.forge.toolchain.venvs import ToolFailed, ToolMissing
from tests.fakes.fake_compilers import FakeCompilers, source_of, write_archive
from tests.waiting import until

RUN = "from tests.fakes.fake_compilers import *; from drupelet.forge.toolchain.llamacpp import LlamaCpp; import sys\n"


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LlamaCpp:
    """A toolchain whose compilers are fakes."""
    return _tool(tmp_path, monkeypatch)


def _tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stop_after: int = 0, fail_at: int = 0) -> LlamaCpp:
    fakes = FakeCompilers.make(tmp_path / "fakes", stop_after=stop_after, fail_at=fail_at)
    if str(fakes.folder) not in os.environ["PATH"]:
        monkeypatch.setenv("PATH", f"{fakes.folder}:{os.environ['PATH']}")
    archive = write_archive(tmp_path / "source.tar.gz")
    pinned = source_of(hashlib.sha256(archive.read_bytes()).hexdigest())
    return LlamaCpp(source=pinned, archive=archive, python=fakes.python, jobs=1)


def test_a_build_ends_with_a_toolchain_and_a_second_one_does_nothing(tool: LlamaCpp, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    said: list[str] = []
    assert not tool.is_ready(tmp_path)
    programs = replace(tool, steps=lambda *step: steps.append(step)).build(tmp_path, progress=said.append)
    assert steps[0] == ("ggml.cpp.o", 1, 6)
    assert [step[1] for step in steps] == [1, 2, 3, 4, 5, 6]
    installed = tool.open(tmp_path)
    assert installed.programs == programs
    assert subprocess.run([installed.program("llama-quantize")], capture_output=True).stdout == b"llama-quantize\n"
    assert "unpacking source.tar.gz" in said
    steps.clear()
    replace(tool, steps=lambda *step: steps.append(step)).build(tmp_path)
    assert not steps
    with pytest.raises(NotFound, match="no program 'llama-cli'"):
        installed.program("llama-cli")


def test_the_digests_depend_on_what_was_built(tool: LlamaCpp, tmp_path: Path) -> None:
    tool.build(tmp_path)
    first = tool.open(tmp_path)
    tool.python.write_text('#!/bin/sh\necho "torch 2.14.0"\n') if tool.python else None
    tool.build(tmp_path)
    assert tool.open(tmp_path).converter_digest != first.converter_digest
    assert tool.open(tmp_path).program_digests == first.program_digests


def test_a_step_that_fails_says_why_keeps_the_log_and_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = _tool(tmp_path, monkeypatch, fail_at=4)
    with pytest.raises(ToolFailed, match=r"compiling llama\.cpp failed: tools\.cpp:1:1: fatal error") as caught:
        broken.build(tmp_path)
    assert "Building CXX object common" in Path(caught.value.where).read_text()
    assert not broken.is_ready(tmp_path)
    steps: list[int] = []
    mended = _tool(tmp_path, monkeypatch)
    replace(mended, steps=lambda _doing, done, _total: steps.append(done)).build(tmp_path)
    assert steps == [4, 5, 6]
    assert mended.is_ready(tmp_path)


def test_an_interrupted_build_ends_its_compiler_and_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = _tool(tmp_path, monkeypatch, stop_after=3)
    # Whoever runs the tests in a shell's background has SIGINT ignored for them, and for the child.
    heeded = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = f"LlamaCpp(source=source_of({tool.source.sha256!r}), archive=Path(sys.argv[1]), python=Path(sys.argv[2]))"
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{heeded}{RUN}{code}.build(Path(sys.argv[3]))",
            str(tool.archive),
            str(tool.python),
            tmp_path,
        ],
        stderr=subprocess.DEVNULL,
    )
    stopped = "llama.cpp-native-*/tree/stopped"
    until(lambda: any((tmp_path / "tools").glob(stopped)), timeout_s=30, what="the third step")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    assert not tool.is_ready(tmp_path)
    assert not list((tmp_path / "tools").glob("llama.cpp-native-*/bin"))
    steps: list[int] = []
    replace(_tool(tmp_path, monkeypatch), steps=lambda _d, done, _t: steps.append(done)).build(tmp_path)
    assert steps == [4, 5, 6]


def test_another_digest_is_refused_before_anything_is_unpacked(tool: LlamaCpp, tmp_path: Path) -> None:
    other = replace(tool, source=source_of("ab" * 32))
    with pytest.raises(SourceUntrusted, match="nothing of it was used"):
        other.build(tmp_path)
    assert not other.source.is_ready(tmp_path)
    assert not list((tmp_path / "tools").glob("*source*"))


def test_pips_refusal_of_a_digest_is_untrusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho 'ERROR: THESE PACKAGES DO NOT MATCH THE HASHES'; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(source.sys, "executable", str(fake))
    with pytest.raises(SourceUntrusted, match="another archive"):
        source_of("ab" * 32).fetch(tmp_path)
    fake.write_text("#!/bin/sh\necho 'ERROR: No matching distribution found'; exit 1\n")
    with pytest.raises(ToolFailed, match="No matching distribution found"):
        source_of("ab" * 32).fetch(tmp_path)


@pytest.mark.parametrize(
    ("members", "links", "why"),
    [
        ({"top/vendor/llama.cpp/../../../../out": b""}, {}, "it has no vendor"),
        ({"top/elsewhere/file": b""}, {}, "it has no vendor"),
        ({}, {"top/vendor/llama.cpp/out": "/etc"}, "not an archive to unpack"),
        ({}, {"top/vendor/llama.cpp/out": "../../../../etc"}, "not an archive to unpack"),
    ],
)
def test_an_archive_that_leads_out_is_refused(
    tmp_path: Path, members: dict[str, bytes], links: dict[str, str], why: str
) -> None:
    archive = write_archive(tmp_path / "a.tar.gz", members, links=links)
    with pytest.raises(SourceUntrusted, match=why):
        unpack(archive, tmp_path / "in" / "tree", inside="vendor/llama.cpp")
    assert not (tmp_path / "out").exists()


def test_an_archive_without_bounds_or_sense_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_archive(tmp_path / "a.tar.gz", {f"top/vendor/llama.cpp/{n}": b"x" for n in range(20)})
    monkeypatch.setattr(source, "MEMBERS_MAX", 10)
    with pytest.raises(SourceUntrusted, match="more than any source"):
        unpack(archive, tmp_path / "tree", inside="vendor/llama.cpp")
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(SourceUntrusted, match="not an archive"):
        unpack(archive, tmp_path / "tree", inside="vendor/llama.cpp")


def test_without_room_nothing_is_compiled(tool: LlamaCpp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "BUILD_BYTES", 1 << 60)
    with pytest.raises(DiskFull, match="DRUPELET_CACHE"):
        tool.build(tmp_path)
    assert not tool.is_ready(tmp_path)


def test_without_a_compiler_it_says_what_to_install(
    tool: LlamaCpp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(ToolMissing, match="apt-get install g"):
        tool.build(tmp_path)


def test_a_python_without_the_packages_is_refused(tool: LlamaCpp, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'torch'\" >&2; exit 1\n")
    bare.chmod(0o755)
    with pytest.raises(BadInput, match="No module named 'torch'"):
        replace(tool, python=bare).build(tmp_path)
    with pytest.raises(BadInput, match="cannot be run"):
        replace(tool, python=tmp_path / "none").build(tmp_path)


@pytest.mark.parametrize("damage", ["program", "note", "converter", "pins"])
def test_what_is_no_longer_what_was_built_is_missing(
    tool: LlamaCpp, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool.build(tmp_path)
    installed = tool.open(tmp_path)
    if damage == "program":
        installed.program("llama-bench").write_text("#!/bin/sh\n")
    elif damage == "note":
        tool.location(tmp_path).write_text("{}")
    elif damage == "converter":
        (installed.source / "convert_hf_to_gguf.py").unlink()
    else:
        tool = replace(tool, source=source_of("cd" * 32))
    with pytest.raises(ToolMissing, match=r"run: drupelet forge toolchain build llama\.cpp"):
        tool.open(tmp_path)


def test_two_builds_at_once_are_refused(tool: LlamaCpp, tmp_path: Path) -> None:
    held = PosixDisk().lock(tmp_path / "tools" / "llama.cpp.lock", holder="another build")
    with held, pytest.raises(Locked):
        tool.build(tmp_path)


def test_commands(tool: LlamaCpp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRUPELET_CACHE", str(tmp_path))

    def drupelet(*words: str) -> str:
        result = CliRunner().invoke(cli({"forge"}), ["forge", "toolchain", *words])
        if isinstance(result.exception, DrupeletError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    shown = json.loads(drupelet("show", "-o", "json"))
    assert next(one for one in shown if one["name"] == "llama.cpp")["ready"] is False
    with pytest.raises(ToolMissing):
        drupelet("path")
    with pytest.raises(BadInput, match="there is no tool 'gcc'"):
        drupelet("build", "gcc")
    with pytest.raises(SourceUntrusted):
        drupelet("build", "--source", str(tool.archive))


def test_the_last_words_are_those_that_complain() -> None:
    assert last_words(["error: no space", "  ", "make: leaving"]) == "error: no space"
    assert last_words(["a", "b", ""]) == "b"
    assert last_words([]) == ""


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ToolFailed, match="cannot start: No such file"):
        run([tmp_path / "none"], log=tmp_path / "log", doing="it")

"""The runtime's llama-server: whole or not there, one build for each level that a device may choose."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from drupelet.core.errors import BadInput
from drupelet.engine.levels import LEVELS, PREFIX
from drupelet.forge.toolchain.servers import TARGETS, Servers, compiler_of, target_of
from drupelet.forge.toolchain.venvs import ToolFailed, ToolMissing
from tests.fakes.fake_compilers import FakeCompilers, source_of, write_archive

STRIP = '#!/bin/sh\ncp "$4" "$3"\n'


def _tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fail_at: int = 0, version: str = "1.0") -> Servers:
    fakes = FakeCompilers.make(tmp_path / "fakes", fail_at=fail_at).folder
    for name, text in (("g++", f"#!/bin/sh\necho compiler {version}\n"), ("strip", STRIP)):
        (fakes / f"aarch64-linux-gnu-{name}").write_text(text)
        (fakes / f"aarch64-linux-gnu-{name}").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fakes}:/usr/bin:/bin")
    archive = write_archive(tmp_path / "source.tar.gz")
    return Servers(
        TARGETS["arm64"], source=source_of(hashlib.sha256(archive.read_bytes()).hexdigest()), archive=archive, jobs=1
    )


def test_every_level_that_a_device_may_choose_is_built_for_its_machine() -> None:
    built = {(name, target.machine) for target in TARGETS.values() for name in target.levels}
    assert built == {(level.name, level.machine) for level in LEVELS}


def test_a_build_makes_one_program_a_level_and_a_second_one_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    tool = replace(_tool(tmp_path, monkeypatch), steps=lambda doing, _done, _all: steps.append(doing))
    folder = tool.build(tmp_path)
    assert {path.name for path in folder.iterdir()} == {PREFIX + level for level in TARGETS["arm64"].levels}
    assert steps[0].startswith("llama-server-armv8-a: ")
    steps.clear()
    assert tool.build(tmp_path) == folder
    assert not steps
    assert not list((tmp_path / "tools").glob("*.part"))


def test_a_build_that_failed_is_not_there_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = _tool(tmp_path, monkeypatch, fail_at=4)
    with pytest.raises(ToolFailed, match="compiling llama-server-armv8-a failed"):
        broken.build(tmp_path)
    assert not broken.is_ready(tmp_path)
    mended = _tool(tmp_path, monkeypatch)
    assert mended.location(tmp_path) == broken.location(tmp_path)
    assert len(list(mended.build(tmp_path).iterdir())) == len(TARGETS["arm64"].levels)


def test_another_compiler_is_another_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _tool(tmp_path, monkeypatch).location(tmp_path)
    assert _tool(tmp_path, monkeypatch, version="2.0").location(tmp_path) != first


def test_a_missing_compiler_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = _tool(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="there is no aarch64-linux-gnu-g") as caught:
        tool.build(tmp_path)
    assert "apt-get install g++-aarch64-linux-gnu" in caught.value.fix
    with pytest.raises(ToolMissing) as caught:
        compiler_of(TARGETS["amd64"])
    assert "g++-x86-64-linux-gnu" in caught.value.fix


def test_an_unknown_platform_is_refused() -> None:
    with pytest.raises(BadInput, match="no runtime for 'riscv64'") as caught:
        target_of("riscv64")
    assert caught.value.fix == "use arm64 or amd64"

"""The canonical prompts on a board's processor: what is named is looked at first, and what goes wrong there refuses."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import variant_name
from drupelet.durable import PosixDisk
from drupelet.engine.logits import Logits
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Wanted, convert
from drupelet.forge.evaluation import Bench, evaluate
from drupelet.forge.recipe import parse_recipe
from drupelet.forge.report import Report
from drupelet.forge.runners import RUNNERS, emulated
from drupelet.forge.runners.emulated import LIBRARIES, EmulatedRunner
from drupelet.forge.runners.port import RunSpec, Session
from tests.forge.recipes import RECIPE

AARCH64 = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00"
SERVER = os.environ.get("DRUPELET_EMULATED_SERVER", "")


class PlayedRunner:
    """This machine's own runner under the name of another, or one whose program does not start."""

    file_format = "gguf"
    tool = "qemu-aarch64 -cpu cortex-a76"

    def __init__(self, *, broken: bool = False) -> None:
        self._broken = broken

    def start(self, spec: RunSpec, *, runtime_folder: Path) -> Session:
        model = spec.model.with_name("nowhere") if self._broken else spec.model
        return RUNNERS["gguf"].start(dataclasses.replace(spec, model=model), runtime_folder=runtime_folder)

    def logits(self, spec: RunSpec, sequences: Sequence[Sequence[int]], out: Path) -> Logits | None:
        raise AssertionError("nobody asks an emulated processor for logits")


def _evaluate(tiny: Path, tmp_path: Path, runtime_folder: Path, runner: PlayedRunner, expected: str = "1") -> Report:
    wanted = [Wanted(name=variant_name(one), quantization=one) for one in ("q8_0", "f16")]
    checkpoint = open_checkpoint(tiny)
    made = convert(checkpoint, wanted, tmp_path / "out", model_name="t", disk=PosixDisk())
    recipe = parse_recipe(RECIPE.replace(b'"tokens_min", value = "1"', f'"tokens_min", value = "{expected}"'.encode()))
    bench = Bench(disk=PosixDisk(), cache=tmp_path / "cache", runtime_folder=runtime_folder, emulated=runner)
    return evaluate(recipe, made, reference=made[1].artifact, checkpoint=checkpoint, bench=bench)


def test_what_it_answers_is_in_the_report(tiny: Path, tmp_path: Path, runtime_folder: Path) -> None:
    report = _evaluate(tiny, tmp_path, runtime_folder, PlayedRunner())
    assert report.passed
    assert [(one.variant, one.canonical[0].passed) for one in report.emulated] == [("q8_0", True), ("f16", True)]
    assert report.emulated[0].processor == "qemu-aarch64 -cpu cortex-a76"


@pytest.mark.parametrize(
    ("broken", "expected", "words"),
    [
        (True, "1", "q8_0 on qemu-aarch64 -cpu cortex-a76: it does not run: "),
        (False, "999", "q8_0 on qemu-aarch64 -cpu cortex-a76: canonical prompt anything: "),
    ],
)
def test_what_goes_wrong_there_refuses(
    tiny: Path, tmp_path: Path, runtime_folder: Path, broken: bool, expected: str, words: str
) -> None:
    report = _evaluate(tiny, tmp_path, runtime_folder, PlayedRunner(broken=broken), expected)
    assert any(finding.startswith(words) for finding in report.findings), report.findings


@pytest.mark.parametrize(
    ("data", "processor", "error", "words"),
    [
        (None, "cortex-a76", NotFound, "cannot be read"),
        (b"#!/bin/sh\n", "cortex-a76", BadInput, "not a program for aarch64"),
        (AARCH64[:18] + b"\x3e\x00", "cortex-a76", BadInput, "not a program for aarch64"),
        (AARCH64, "z80", BadInput, "unknown processor 'z80'; use one of cortex-a76"),
    ],
)
def test_what_cannot_be_emulated_is_said_before_any_work(
    data: bytes | None, processor: str, error: type[Exception], words: str, tmp_path: Path
) -> None:
    server = tmp_path / "llama-server"
    if data is not None:
        server.write_bytes(data)
    with pytest.raises(error) as caught:
        EmulatedRunner.find(server, processor=processor)
    assert words in str(caught.value)


def test_without_qemu_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "llama-server"
    server.write_bytes(AARCH64)
    monkeypatch.setattr(emulated.shutil, "which", lambda _name: None)
    with pytest.raises(NotFound, match="apt-get install qemu-user-static"):
        EmulatedRunner.find(server)


@pytest.mark.skipif(
    not SERVER or not LIBRARIES.exists(), reason="needs DRUPELET_EMULATED_SERVER, an arm64 llama-server"
)
def test_a_real_server_answers_as_this_machine_does(tiny: Path, tmp_path: Path, runtime_folder: Path) -> None:
    wanted = [Wanted(name=variant_name("q8_0"), quantization="q8_0")]
    (made,) = convert(open_checkpoint(tiny), wanted, tmp_path / "out", model_name="t", disk=PosixDisk())
    spec = RunSpec(model=made.artifact.path, alias="t", context_tokens=64, digest=made.artifact.digest)
    with RUNNERS["gguf"].start(spec, runtime_folder=runtime_folder) as here:
        expected = here.tokenize("milk and coffee")
    with EmulatedRunner.find(Path(SERVER)).start(spec, runtime_folder=runtime_folder) as there:
        assert there.tokenize("milk and coffee") == expected
        assert there.ask([{"role": "user", "content": "milk"}], tokens_max=4).tokens == 4

"""Recipes that want llama.cpp's tools: what is made once, what the ledger says, what is refused before any work."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from drupelet.cli.main import main
from drupelet.core.errors import BadInput
from drupelet.core.names import Digest, ReleaseId, Version, family
from drupelet.durable import PosixDisk
from drupelet.forge.calibration import judge_text, read_calibration
from drupelet.forge.checkpoint import Checkpoint, open_checkpoint
from drupelet.forge.choice import formats_for
from drupelet.forge.errors import CalibrationBad, RecipeBad
from drupelet.forge.evaluation import Bench
from drupelet.forge.formats import FORMATS
from drupelet.forge.formats.kinds import KINDS, size_bytes
from drupelet.forge.formats.toolchain import ToolchainGguf
from drupelet.forge.imports import open_source
from drupelet.forge.pipeline import Pipeline
from drupelet.forge.recipe import Calibration, parse_recipe
from drupelet.forge.toolchain.tools import Tools
from drupelet.forge.toolchain.venvs import ToolFailed, ToolMissing
from tests.fakes.fake_toolchain import fake_toolchain
from tests.fakes.tiny_checkpoint import TinyLlama, write_tiny_checkpoint

RECIPE = """\
format = "drupelet.recipe/1"
family = "kiosk"
model = "kiosk"
context_tokens = 64
converter = "toolchain"

[[variants]]
name = "small"
quantization = "q4_k_m"

[[canonical_prompts]]
id = "hours"
prompt = "When do you open?"
tokens_max = 4
expect = [{ kind = "tokens_max", value = "4" }]

[evaluation]
prompts = ["Where is the milk?"]
answer_tokens_max = 4

[quality]
kl_mean_max = 100.0
top1_agreement_min = 0.0
"""
CALIBRATED = RECIPE + '\n[calibration]\nfile = "shop.txt"\ncontext_tokens = 64\nchunks = 4\n'
SHOP = "When do you open? We open at nine. " * 40


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return fake_toolchain(tmp_path_factory.mktemp("fake"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    shape = TinyLlama(hidden=256, ffn=256, layers=1)
    return open_checkpoint(write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "wide", shape=shape))


def _clock() -> Callable[[], int]:
    now = iter(range(1_000, 100_000, 10))
    return lambda: next(now)


def _format(tools: Tools, work: Path, *, calibrated: bool = False) -> ToolchainGguf:
    text = judge_text(SHOP.encode(), Calibration(context_tokens=64, chunks=4), where="shop.txt")
    return ToolchainGguf(tools=tools, work=work, now_ms=_clock(), calibration=text if calibrated else None)


def _write(fmt: ToolchainGguf, checkpoint: Checkpoint, out: Path, quantization: str) -> Digest:
    made = fmt.write(
        checkpoint,
        out,
        quantization=quantization,
        model_name="kiosk/1.0",
        disk=PosixDisk(),
        progress=lambda _doing, done, total: None if done <= total else pytest.fail("more than all"),
    )
    assert out.stat().st_size == made.size_bytes
    return made.digest


def test_the_whole_line_with_every_step_in_the_ledger(tools: Tools, checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "shop.txt").write_text(SHOP)
    recipe = parse_recipe(CALIBRATED.encode())
    assert recipe.calibration is not None
    text = read_calibration(recipe.calibration, beside=tmp_path)
    fmt = ToolchainGguf(tools=tools, work=tmp_path / "work", now_ms=_clock(), calibration=text)
    with tempfile.TemporaryDirectory(prefix="drp-") as runtime:
        line = Pipeline(
            release=ReleaseId(family("kiosk"), Version.parse("1.0")),
            recipe=recipe,
            recipe_digest=text.digest,
            checkpoint=checkpoint,
            folder=tmp_path / "out",
            bench=Bench(disk=PosixDisk(), cache=tmp_path / "work", runtime_folder=Path(runtime)),
            now_ms=_clock(),
            formats={**FORMATS, "gguf": fmt},
        )
        report = line.measure()
    assert report.variant("small")
    steps = {step.name: step for step in line.ledger.steps}
    assert list(steps) == ["convert", "importance matrix", "quantize", "evaluate"]
    assert steps["convert"].tool_digest == tools.converter_digest
    assert steps["importance matrix"].inputs["calibration"] == text.digest
    assert set(steps["convert"].outputs.values()) <= set(steps["quantize"].inputs.values())
    assert steps["quantize"].outputs["small.gguf"].text == report.variants[0].digest
    package = line.pack(report)
    assert package.manifest.provenance.converter.startswith("a fake of llama.cpp")


def test_what_is_made_once_is_made_once_and_mended_when_damaged(
    tools: Tools, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    real = Tools.convert

    def counted(*arguments: object, **named: object) -> None:
        called.append("convert")
        real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Tools, "convert", counted)
    fmt = _format(tools, tmp_path / "work")
    first = _write(fmt, checkpoint, tmp_path / "out/f16.gguf", "f16")
    small = _write(fmt, checkpoint, tmp_path / "out/q4.gguf", "q4_k_m")
    assert called == ["convert"]
    (kept,) = (tmp_path / "work").glob("*-f16.gguf")
    kept.chmod(0o644)
    kept.write_bytes(kept.read_bytes()[:-1] + b"\xff")
    assert _write(fmt, checkpoint, tmp_path / "out/again.gguf", "f16") == first
    assert called == ["convert", "convert"]
    assert _write(fmt, checkpoint, tmp_path / "out/q4.gguf", "q4_k_m") == small


def test_an_interrupted_conversion_leaves_nothing_behind(tools: Tools, checkpoint: Checkpoint, tmp_path: Path) -> None:
    def stop(doing: str, done: int, _total: int) -> None:
        if done and doing.startswith("quantizing"):
            raise KeyboardInterrupt

    fmt = _format(tools, tmp_path / "work")
    out = tmp_path / "out" / "q4.gguf"
    with pytest.raises(KeyboardInterrupt):
        fmt.write(checkpoint, out, quantization="q4_k_m", model_name="k", disk=PosixDisk(), progress=stop)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_tool_that_fails_leaves_the_old_file(
    tools: Tools, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fmt = _format(tools, tmp_path / "work")
    out = tmp_path / "out" / "q4.gguf"
    first = _write(fmt, checkpoint, out, "q4_k_m")

    def broken(*_arguments: object, **_named: object) -> None:
        raise ToolFailed("quantizing failed: out of memory")

    monkeypatch.setattr(Tools, "quantize", broken)
    with pytest.raises(ToolFailed):
        _write(fmt, checkpoint, out, "q4_k_m")
    assert Digest.parse(first.text) == first
    assert [path.name for path in out.parent.iterdir()] == ["q4.gguf"]


def test_very_few_bits_without_a_text_are_refused_and_with_one_are_made(
    tools: Tools, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"\[calibration\]"):
        _write(_format(tools, tmp_path), checkpoint, tmp_path / "out.gguf", "iq2_xs")
    _write(_format(tools, tmp_path, calibrated=True), checkpoint, tmp_path / "out.gguf", "iq2_xs")


def test_a_copy_where_no_second_name_can_be_given(
    tools: Tools, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_disk(*_arguments: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", other_disk)
    _write(_format(tools, tmp_path / "work"), checkpoint, tmp_path / "out" / "f16.gguf", "f16")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a\nb\0c" * 100, "a NUL in line 2"),
        (b"\xff\xfe" * 100, "not UTF-8 at byte 0"),
        (b"too short", "9 bytes are too little for 2 x 64 tokens"),
    ],
)
def test_a_text_that_cannot_be_meant_is_refused(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "shop.txt").write_bytes(data)
    with pytest.raises(CalibrationBad, match=words):
        read_calibration(Calibration(file="shop.txt", context_tokens=64), beside=tmp_path)
    with pytest.raises(CalibrationBad, match="cannot be read"):
        read_calibration(Calibration(file="none.txt"), beside=tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('converter = "toolchain"\n', "", 'q4_k_m is not made by the embedded converter; set converter = "toolchain"'),
        ("q4_k_m", "iq2_xs", r"iq2_xs needs an importance matrix; give the recipe a \[calibration\] text"),
        ("q4_k_m", "q4_km", "unknown quantization 'q4_km'; did you mean 'q4_k_m'"),
        ("[quality]", "[calibration]\n[quality]", "calibration needs either a file or a text"),
        ("[quality]", '[calibration]\ntext = "a"\ncontext_tokens = 100\n[quality]', "100 is no power of two"),
        ('converter = "toolchain"', 'converter = "toolbox"', "converter"),
    ],
)
def test_recipes_that_cannot_be_meant(old: str, new: str, words: str) -> None:
    with pytest.raises(RecipeBad, match=words):
        parse_recipe(RECIPE.replace(old, new).encode())


def test_a_calibration_without_the_toolchain_is_refused() -> None:
    embedded = CALIBRATED.replace('converter = "toolchain"\n', "").replace("q4_k_m", "q8_0")
    with pytest.raises(RecipeBad, match=r"only llama\.cpp's tools use a calibration text"):
        parse_recipe(embedded.encode())


def test_a_toolchain_that_is_not_there_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRUPELET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    words = ["forge", "build", str(tmp_path / "recipe.toml"), "--checkpoint", str(tmp_path), "--version", "1.0"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--out", str(tmp_path / "out")])
    assert ended.value.code == ToolMissing.exit_code == 4
    assert "run: drupelet forge toolchain build llama.cpp" in capsys.readouterr().err


def test_an_embedded_recipe_needs_no_toolchain(tmp_path: Path) -> None:
    recipe = parse_recipe(RECIPE.replace('converter = "toolchain"\n', "").replace("q4_k_m", "q8_0").encode())
    found = formats_for(recipe, recipe_folder=tmp_path, tools_cache=tmp_path, work=tmp_path, now_ms=_clock())
    assert found is FORMATS


def test_sizes_fall_with_the_bits() -> None:
    assert size_bytes(1_000_000, "f16") == 2_000_000
    assert size_bytes(8, "no such") == size_bytes(8, "f32")
    assert all(kind.bits < 9 for kind in KINDS.values() if not kind.whole)
    assert msgspec.to_builtins(tuple(KINDS))[0] == "f16", "the reference comes first"


def test_a_gguf_that_is_the_reference_is_quantized_as_it_is(
    tools: Tools, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    disk = PosixDisk()
    made = FORMATS["gguf"].write(
        checkpoint, tmp_path / "f16.gguf", quantization="f16", model_name="x", disk=disk, progress=lambda *_: None
    )
    writer, source = _format(tools, tmp_path / "work"), open_source(made.path)
    small = writer.write(
        source, tmp_path / "small.gguf", quantization="q4_k_m", model_name="x", disk=disk, progress=lambda *_: None
    )
    assert [(step.name, dict(step.inputs)) for step in small.steps] == [("quantize", {"f16.gguf": made.digest})]
    with pytest.raises(BadInput, match="a GGUF is not converted again"):
        writer.write(
            source, tmp_path / "bf16.gguf", quantization="bf16", model_name="x", disk=disk, progress=lambda *_: None
        )

"""Variants are judged by what they say and how far they are from f16, on a real child."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest, ReleaseId, variant_name
from drupelet.durable import PosixDisk
from drupelet.engine.logits import Logits
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Converted, Wanted, convert
from drupelet.forge.errors import EvaluationRefused, PackageBad, RecipeBad
from drupelet.forge.evaluation import Bench, evaluate, require_pass
from drupelet.forge.evaluation.distance import compare, divergence
from drupelet.forge.pack import MANIFEST_FILE, memory_at, pack
from drupelet.forge.publish import read_package
from drupelet.forge.recipe import Recipe, parse_recipe
from drupelet.forge.report import Report, VariantReport
from drupelet.wire.codec import decode
from drupelet.wire.manifest import Budgets, ReleaseManifest
from tests.forge.recipes import RECIPE


def _logits(path: Path, array: np.ndarray, lengths: tuple[int, ...]) -> Logits:
    array.astype(np.float32).tofile(path)
    return Logits(path=path, lengths=lengths, vocab=array.shape[1])


def test_divergence_is_the_textbooks() -> None:
    p, q = np.array([[0.5, 0.25, 0.25]]), np.array([[0.25, 0.25, 0.5]])
    found = divergence(np.log(p).astype(np.float32) + 3, np.log(q).astype(np.float32) - 7)
    assert found[0] == pytest.approx(0.5 * math.log(2) + 0.25 * math.log(0.5), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 50))
def test_divergence_is_never_negative_and_zero_only_for_the_same(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    a = (random.standard_normal((4, 7)) * scale).astype(np.float32)
    b = (random.standard_normal((4, 7)) * scale).astype(np.float32)
    # Logits so far apart that all weight lies on one token, the same one, differ by less than a float can say.
    assert (divergence(a, b) >= 0).all()
    assert scale > 3 or (divergence(a, b) > 0).all()
    assert divergence(a, a + 5).max() < 1e-5


def test_a_comparison_counts_positions_over_all_sequences(tmp_path: Path) -> None:
    reference = np.eye(5) * 4
    other = reference.copy()
    other[3] = [9, 0, 0, 0, 0]
    sequences = ((0, 1), (2, 3, 4))
    found = compare(_logits(tmp_path / "a", reference, (2, 3)), _logits(tmp_path / "b", other, (2, 3)), sequences)
    quality = found.quality
    assert (quality.top1_agreement, quality.tokens) == (0.8, 5)
    assert quality.kl_max == pytest.approx(quality.kl_mean * 5)
    assert (found.worst_sequence, found.quantiles[-1]) == (1, quality.kl_max)
    with pytest.raises(BadInput, match="different sequences"):
        compare(_logits(tmp_path / "a", reference, (2, 3)), _logits(tmp_path / "b", other, (3, 2)), sequences)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Converted, ...]]:
    """A tiny checkpoint in f16 and Q8_0."""
    from tests.fakes.tiny_checkpoint import write_tiny_checkpoint

    folder = tmp_path_factory.mktemp("made")
    checkpoint = write_tiny_checkpoint(folder / "checkpoint")
    wanted = [Wanted(name=variant_name(one), quantization=one) for one in ("q8_0", "f16")]
    return checkpoint, convert(open_checkpoint(checkpoint), wanted, folder, model_name="tiny 1.0", disk=PosixDisk())


def _evaluate(
    recipe: Recipe, made: tuple[Path, tuple[Converted, ...]], cache: Path, runtime_folder: Path, said: list[str]
) -> Report:
    bench = Bench(disk=PosixDisk(), cache=cache, runtime_folder=runtime_folder, progress=said.append)
    checkpoint = open_checkpoint(made[0])
    return evaluate(recipe, made[1], reference=made[1][1].artifact, checkpoint=checkpoint, bench=bench)


def test_a_sound_release_passes_and_the_reference_is_computed_once(
    made: tuple[Path, tuple[Converted, ...]], tmp_path: Path, runtime_folder: Path
) -> None:
    first: list[str] = []
    second: list[str] = []
    report = _evaluate(parse_recipe(RECIPE), made, tmp_path / "cache", runtime_folder, first)
    again = _evaluate(parse_recipe(RECIPE), made, tmp_path / "cache", runtime_folder, second)
    assert report.passed
    assert report.findings == ()
    assert report.reference_check is not None
    assert 0 < report.reference_check.kl_mean < 1e-5
    assert [cost.prompt_tokens < 64 for cost in report.variants[0].costs] == [True, True]
    assert report.variants[0].costs[1].prompt_tokens > 40, "a prompt that nearly fills the context"
    assert report.variants[0].deterministic
    assert report.variants[0].worst_prompt
    assert report.variants[0].kl_quantiles[-1] == pytest.approx(report.variants[0].quality.kl_max, abs=1e-6)
    q8, f16 = report.variants
    assert q8.quality is not None
    assert f16.quality is not None
    assert 0 < q8.quality.kl_mean < 0.05
    assert f16.quality.kl_max == 0.0
    assert q8.memory_bytes > 1 << 20
    assert q8.tokens_per_second > 0
    assert any("reference's logits" in line for line in first)
    assert not any("reference's logits" in line for line in second)
    assert again.variants[0].quality == q8.quality
    assert [path.suffix for path in sorted((tmp_path / "cache").iterdir())] == [".json", ".logits"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"tokens_min", value = "1"', b'"contains", value = "fridge"', "q8_0: canonical prompt anything: "),
        (b'"Where is the milk?"', b'"' + b"milk " * 300 + b'"', "exceeds the available context size"),
        (b"kl_mean_max = 0.05", b"kl_mean_max = 0.0", "mean KL to f16 is"),
        (b"top1_agreement_min = 0.7", b"top1_agreement_min = 1.0\nkl_p99_max = 0.0", "p99 KL to f16 is"),
    ],
)
def test_what_breaks_a_budget_is_refused_with_the_number(
    made: tuple[Path, tuple[Converted, ...]],
    tmp_path: Path,
    runtime_folder: Path,
    old: bytes,
    new: bytes,
    words: str,
) -> None:
    report = _evaluate(parse_recipe(RECIPE.replace(old, new)), made, tmp_path, runtime_folder, [])
    assert not report.passed
    assert any(words in finding for finding in report.findings), report.findings
    with pytest.raises(EvaluationRefused) as caught:
        require_pass(report)
    assert caught.value.findings == report.findings
    assert caught.value.exit_code == 8
    require_pass(report, override="the demo needs it")
    with pytest.raises(EvaluationRefused):
        require_pass(report, override="   ")


def test_absolute_budgets_hold_here_too(
    made: tuple[Path, tuple[Converted, ...]], tmp_path: Path, runtime_folder: Path
) -> None:
    tight = Budgets(load_ms_max=1, ttft_ms_max=0, answer_ms_max=0, tokens_per_second_min=1e9, memory_bytes_max=1)
    recipe = msgspec.structs.replace(parse_recipe(RECIPE), budgets=tight)
    report = _evaluate(recipe, made, tmp_path, runtime_folder, [])
    said = " ".join(report.variants[0].findings)
    for word in ("loading takes", "first token takes", "median answer takes", "memory takes", "tokens a second where"):
        assert word in said


def test_a_variant_that_does_not_run_is_a_finding(
    made: tuple[Path, tuple[Converted, ...]], tmp_path: Path, runtime_folder: Path
) -> None:
    q8, f16 = made[1]
    cut = tmp_path / "q8_0.gguf"
    cut.write_bytes(q8.artifact.path.read_bytes()[:5000])
    import dataclasses

    broken = dataclasses.replace(q8, artifact=dataclasses.replace(q8.artifact, path=cut))
    report = _evaluate(parse_recipe(RECIPE), (made[0], (broken, f16)), tmp_path / "cache", runtime_folder, [])
    assert report.variants[0].findings[0].startswith("it does not run: the model file's digest is")
    assert report.variants[1].findings == ()


def _report(findings: tuple[str, ...] = ()) -> Report:
    zero = Digest.of_hex("0" * 64).text
    names = ("q8_0", "f16")
    return Report(
        reference=zero,
        checkpoint=zero,
        sequences=1,
        passed=not findings,
        findings=findings,
        variants=tuple(
            VariantReport(
                name=name,
                quantization=name,
                digest=zero,
                size_bytes=1,
                convert_ms=1,
                load_ms=1,
                ttft_ms=1.0,
                answer_ms=1.0,
                tokens_per_second=1.0,
                memory_bytes=40 << 20,
            )
            for name in names
        ),
    )


def _pack(tiny: Path, out: Path, report: Report, *, override: str = "", family: str = "tiny") -> ReleaseManifest:
    package = pack(
        ReleaseId.parse(f"{family}/1.3"),
        parse_recipe(RECIPE),
        report,
        recipe_digest=Digest.of_hex("1" * 64),
        checkpoint=open_checkpoint(tiny),
        folder=out,
        disk=PosixDisk(),
        created_at_ms=1_700_000_000_000,
        override=override,
    )
    return package.manifest


def test_the_manifest_says_what_was_asked_and_measured(tiny: Path, tmp_path: Path) -> None:
    manifest = _pack(tiny, tmp_path / "out", _report())
    assert manifest == decode(ReleaseManifest, (tmp_path / "out" / MANIFEST_FILE).read_bytes())
    assert read_package(tmp_path / "out", disk=PosixDisk()) == manifest
    assert [variant.name for variant in manifest.variants] == ["q8_0", "f16"]
    assert manifest.evaluation.passed
    assert "gguf 0." in manifest.provenance.converter


def test_an_override_is_signed_and_a_refusal_leaves_no_manifest(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _pack(tiny, out, _report())
    with pytest.raises(EvaluationRefused, match="q8_0: bad"):
        _pack(tiny, out, _report(("q8_0: bad", "f16: worse")))
    assert not (out / MANIFEST_FILE).exists()
    assert decode(Report, (out / "report.json").read_bytes()).findings == ("q8_0: bad", "f16: worse")
    manifest = _pack(tiny, out, _report(("q8_0: bad",)), override=" a drill ")
    assert (manifest.evaluation.passed, manifest.evaluation.overridden) == (False, "a drill")
    assert _pack(tiny, out, _report(), override="needless").evaluation.overridden == ""


def test_a_manifest_that_nobody_stands_for_is_not_published(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = _pack(tiny, out, _report(("q8_0: bad",)), override="a drill")
    bare = msgspec.structs.replace(manifest, evaluation=msgspec.structs.replace(manifest.evaluation, overridden=""))
    (out / MANIFEST_FILE).write_bytes(msgspec.json.encode(bare))
    with pytest.raises(EvaluationRefused):
        read_package(out, disk=PosixDisk())


def test_a_recipe_of_another_family_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeBad, match="for 'tiny', not for 'kiosk'"):
        _pack(tiny, tmp_path, _report(), family="kiosk")


def test_memory_grows_with_the_context(tiny: Path) -> None:
    short, long = memory_at(_report().variants[0], open_checkpoint(tiny).shape, 64)
    assert (short.context_tokens, short.memory_bytes) == (64, 44 << 20)
    assert (long.context_tokens, long.memory_bytes >= short.memory_bytes) == (128, True)


def test_errors_are_of_one_family() -> None:
    assert issubclass(PackageBad, BadInput)

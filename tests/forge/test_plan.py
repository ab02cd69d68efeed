"""Plans are arithmetic that says what it is: known speeds lie in their ranges, memory is what a cgroup allows."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import msgspec
import pytest
from benchmarks.bench_memory import SHAPES, made, run_within

from drupelet.cli.main import main
from drupelet.durable import PosixDisk
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.page import plan_page
from drupelet.forge.plan import BOARDS, Plan, make_plan
from drupelet.forge.plan.plan import MEASURED, PREDICTED, UNKNOWN
from drupelet.forge.plan.predict import predict_kl, predict_memory, predict_size, predict_speed
from drupelet.forge.recipe import Recipe, RecipeVariant, load_recipe
from drupelet.forge.shape import ModelShape
from tests.fakes.cgroups import available
from tests.forge.conftest import KIOSK

LLAMA_8B = ModelShape(
    layers=32, hidden=4096, heads=32, kv_heads=8, key_width=128, value_width=128, context=8192, vocab=128_256
)
BILLION = 10**9


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(KIOSK / "recipe.toml")[0]


def _plan(recipe: Recipe, *variants: tuple[str, str], boards: tuple[str, ...], context: int = 2048) -> Plan:
    made = tuple(RecipeVariant(name=name, quantization=name, file_format=kind) for name, kind in variants)
    budgets = msgspec.structs.replace(recipe.budgets, tokens_per_second_min=2.0)
    changed = msgspec.structs.replace(recipe, variants=made, context_tokens=context, budgets=budgets)
    chosen = [BOARDS[name] for name in boards]
    return make_plan(changed, LLAMA_8B, chosen, parameters=8_030_000_000, feed_forward=14_336)


@pytest.mark.parametrize(
    ("billions", "low", "high"), [(1.24, 9.0, 9.0), (2.6, 7.8, 9.3), (3.2, 4.6, 4.9), (8.03, 2.2, 2.2)]
)
def test_speeds_that_were_reported_of_a_pi_5_lie_in_what_is_predicted(billions: float, low: float, high: float) -> None:
    size = predict_size(int(billions * BILLION), "q4_k_m")
    assert size is not None
    shape = _small()
    least, most = predict_speed(size, shape, BOARDS["pi5-8gb"], context_tokens=512)
    assert least * 0.97 <= low <= high <= most * 1.03


def _small() -> ModelShape:
    """A model whose cache counts for nothing."""
    return ModelShape(layers=1, hidden=64, heads=1, kv_heads=1, key_width=1, value_width=1, context=64, vocab=100)


def test_an_8_gb_board_holds_what_it_was_seen_to_hold() -> None:
    assert 6.0e9 < BOARDS["pi5-8gb"].usable_bytes < 7.0e9
    assert all(board.usable_bytes < board.memory_bytes for board in BOARDS.values() if board.keeps_system)
    assert all(board.source for board in BOARDS.values())
    assert not BOARDS["pi4-4gb"].calibrated


def test_memory_has_its_parts() -> None:
    memory = predict_memory(5 * BILLION, LLAMA_8B, feed_forward=14_336, context_tokens=8192)
    assert memory.cache == 2 * 32 * 8 * 128 * 2 * 8192
    assert memory.weights == 5 * BILLION
    assert memory.total > memory.weights + memory.cache + memory.buffers + memory.base


def test_what_fits_where(recipe: Recipe) -> None:
    plan = _plan(recipe, ("q8_0", "gguf"), ("q4_k_m", "gguf"), boards=("pi5-4gb", "pi5-8gb", "pi5-16gb"))
    fits = {one.name: [placed.fits for placed in one.boards] for one in plan.variants}
    assert fits == {"q8_0": [False, False, True], "q4_k_m": [False, True, True]}
    best = {placed.board: one.name for one in plan.variants for placed in one.boards if placed.recommended}
    assert best == {"pi5-8gb": "q4_k_m", "pi5-16gb": "q4_k_m"}, "q8_0 fits the largest, and is too slow"
    assert plan.recommended == ("q4_k_m",)
    assert [one.worth_having for one in plan.variants] == [True, True]


def test_a_board_runs_only_its_formats(recipe: Recipe) -> None:
    plan = _plan(recipe, ("q4_0", "gguf"), ("anything", "hef"), boards=("ai-hat-plus-2", "pi5-8gb"))
    gguf, hef = plan.variants
    assert [placed.runs for placed in gguf.boards] == [False, True]
    assert [placed.runs for placed in hef.boards] == [True, False]
    assert (hef.size_is, hef.kl_is, hef.boards[0].fits) == (UNKNOWN, UNKNOWN, None)
    assert b"runs no gguf" in plan_page(plan)


def test_what_is_predicted_says_so() -> None:
    assert (predict_kl("q4_0"), predict_kl("nonsense"), predict_size(100, "nonsense")) == (0.0089, None, None)
    assert predict_kl("Q5_K_M") is not None
    assert 0.0007 < (predict_kl("q5_k_m") or 0) < 0.0018, "between its neighbours"


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["forge", "plan", *arguments])
    return int(ended.value.code or 0)


def test_the_command_prints_and_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "plan.html"
    given = [str(KIOSK / "recipe.toml"), "--checkpoint", str(KIOSK / "1.2"), "--board", "pi4-2gb", "--context", "512"]
    assert _run(*given, "--html", str(page), "-o", "json") == 0
    shown = capsys.readouterr()
    plan = json.loads(shown.out)
    assert [one["size_is"] for one in plan["variants"]] == [PREDICTED] * 3
    assert plan["recommended"] == ["q8_0"]
    assert set(plan["variants"][0]["memory_bytes"]) == {"256", "512"}
    assert "All predicted" in shown.err
    assert b"Every number here is a prediction" in page.read_bytes()
    assert page.read_bytes().count(b"</script>") == 3
    assert _run(*given) == 0
    assert "recommended" in capsys.readouterr().out


def test_a_reports_numbers_are_measured(tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    from drupelet.wire.codec import encode_canonical
    from tests.forge.test_page import _report

    path = tmp_path / "report.json"
    PosixDisk().replace(path, encode_canonical(_report()))
    given = [str(KIOSK / "recipe.toml"), "--checkpoint", str(KIOSK / "1.2"), "--report", str(path)]
    assert _run(*given, "-o", "json") == 0
    variants = json.loads(capsys.readouterr().out)["variants"]
    assert {one["kl_is"] for one in variants} == {MEASURED}
    assert variants[0]["size_bytes"] == 2 << 20


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--board", "pi3"], "there is no board 'pi3'; use one of pi4-2gb"),
        (["--context", "3"], "a context of 3 tokens; use 16 to"),
        (["--report", "/nowhere/report.json"], "report.json"),
    ],
)
def test_what_cannot_be_planned(more: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(str(KIOSK / "recipe.toml"), "--checkpoint", str(KIOSK / "1.2"), *more) in (2, 4)
    assert words in capsys.readouterr().err


@pytest.mark.skipif(not available(), reason="needs root and a memory cgroup")
def test_a_child_runs_in_what_is_predicted_and_never_reaches_the_limit() -> None:
    shape, context = SHAPES["2M, 4096 tokens"]
    with tempfile.TemporaryDirectory(prefix="dmem") as name:
        folder = Path(name)
        model = made(folder, shape)
        known = open_checkpoint(folder / "checkpoint").shape
        memory = predict_memory(model.stat().st_size, known, feed_forward=shape.ffn, context_tokens=context)
        found = run_within(memory.total, model, context, folder / "r")
        tight = run_within(memory.total * 3 // 10, model, context, folder / "r")
    assert (found.answered, found.hit) == (True, 0), found
    assert tight.hit > 0, "a third of it is too little"

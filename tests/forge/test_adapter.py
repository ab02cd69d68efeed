"""LoRA adapters: what they change, and what is refused because it cannot be for this base."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file

from drupelet.cli.main import main
from drupelet.core.errors import Conflict, DrupeletError
from drupelet.core.names import Digest, ReleaseId, Version, family
from drupelet.core.states import Reason
from drupelet.durable import PosixDisk
from drupelet.durable.port import DiskFull
from drupelet.forge.adapter import check_base, open_adapter
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.errors import AdapterBad, RecipeBad, Unsupported
from drupelet.forge.evaluation import Bench
from drupelet.forge.formats.lora import LORA, LoraFormat
from drupelet.forge.formats.toolchain import ToolchainGguf
from drupelet.forge.merge import merge
from drupelet.forge.pipeline import Pipeline
from drupelet.forge.recipe import parse_recipe
from drupelet.wire.codec import Malformed, decode, encode_canonical
from drupelet.wire.device_api import Hardware
from drupelet.wire.fitness import unfit
from drupelet.wire.manifest import AdapterOf, ReleaseManifest
from tests.fakes.fake_toolchain import fake_toolchain
from tests.fakes.tiny_adapter import adapter_tensors, write_tiny_adapter
from tests.fakes.tiny_checkpoint import TinyLlama, config_of, tiny_tensors, write_tiny_checkpoint
from tests.forge.test_toolchain_format import RECIPE
from tests.wire import examples

PI = Hardware(board="pi5-8gb", architecture="aarch64", memory_bytes=8_000_000_000, cores=4)
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(("rslora", "factor"), [(False, 8 / 4), (True, 8 / 2)])
def test_a_merged_matrix_is_base_plus_scaled_product(tiny: Path, tmp_path: Path, rslora: bool, factor: float) -> None:
    folder = write_tiny_adapter(tmp_path / "lora", use_rslora=rslora)
    merge(open_checkpoint(tiny), open_adapter(folder), tmp_path / "merged", disk=PosixDisk(), scale=0.5)
    ours, base = load_file(tmp_path / "merged" / "model.safetensors"), load_file(tiny / "model.safetensors")
    pair = adapter_tensors(TinyLlama())
    change = 0.5 * factor * pair[f"{Q0}.lora_B.weight"] @ pair[f"{Q0}.lora_A.weight"]
    name = "model.layers.0.self_attn.q_proj.weight"
    np.testing.assert_allclose(ours[name], base[name] + change, atol=1e-5)
    assert not np.array_equal(ours[name], base[name])
    same = "model.layers.0.mlp.up_proj.weight"
    np.testing.assert_array_equal(ours[same], base[same])
    assert open_checkpoint(tmp_path / "merged").tensors.keys() == open_checkpoint(tiny).tensors.keys()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_merging_twice_gives_the_same_bytes_in_the_bases_own_type(tmp_path: Path, dtype: str) -> None:
    tensors = {name: value.astype(dtype) for name, value in tiny_tensors(TinyLlama()).items()}
    base = open_checkpoint(write_tiny_checkpoint(tmp_path / "base", tensors=tensors))
    adapter = open_adapter(write_tiny_adapter(tmp_path / "lora"))
    digests = {
        open_checkpoint(merge(base, adapter, tmp_path / name, disk=PosixDisk())).digest for name in ("one", "two")
    }
    assert len(digests) == 1
    assert load_file(tmp_path / "one" / "model.safetensors")["model.norm.weight"].dtype == dtype


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"r": 8}, "is of rank 4, its config says 8"),
        ({"r": 0}, "r"),
        ({"lora_alpha": "much"}, "lora_alpha"),
        ({"peft_type": "IA3"}, "kind 'IA3'"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "trained biases"),
        ({"modules_to_save": ["lm_head"]}, "saved whole"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha for each module"),
    ],
)
def test_configs_that_lie_or_are_not_known(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises((AdapterBad, Unsupported), match=words):
        open_adapter(write_tiny_adapter(tmp_path / "lora", **changes))


def test_weights_that_do_not_fit_together(tmp_path: Path) -> None:
    whole = adapter_tensors(TinyLlama())
    half = {name: value for name, value in whole.items() if name != f"{Q0}.lora_B.weight"}
    with pytest.raises(AdapterBad, match="only its lora_A"):
        open_adapter(write_tiny_adapter(tmp_path / "half", tensors=half))
    crooked = whole | {f"{Q0}.lora_B.weight": np.zeros((64, 3), dtype=np.float32)}
    with pytest.raises(AdapterBad, match="do not multiply"):
        open_adapter(write_tiny_adapter(tmp_path / "crooked", tensors=crooked))
    strange = whole | {"base_model.model.lm_head.weight": np.zeros((4, 4), dtype=np.float32)}
    with pytest.raises(Unsupported, match="neither lora_A nor lora_B"):
        open_adapter(write_tiny_adapter(tmp_path / "strange", tensors=strange))
    (tmp_path / "crooked" / "adapter_model.safetensors").unlink()
    (tmp_path / "crooked" / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(Unsupported, match="is a pickle, which is never opened"):
        open_adapter(tmp_path / "crooked")
    with pytest.raises(AdapterBad, match=r"there is no adapter_config\.json"):
        open_adapter(tmp_path)


@pytest.mark.parametrize(
    ("shape", "named", "words"),
    [
        (TinyLlama(hidden=32, ffn=64), "", r"it changes .*q_proj.weight of shape \[32, 32\], the base's is \[64, 64\]"),
        (TinyLlama(layers=4), "", r"the base has no model\.layers\.2\.self_attn\.q_proj\.weight"),
        (TinyLlama(), "another/model", "it is for somebody/tiny, and the base is another/model"),
    ],
)
def test_an_adapter_for_another_base_is_refused_with_what_differs(
    tmp_path: Path, shape: TinyLlama, named: str, words: str
) -> None:
    config = {**config_of(TinyLlama()), **({"_name_or_path": named} if named else {})}
    base = open_checkpoint(write_tiny_checkpoint(tmp_path / "base", config=config))
    adapter = open_adapter(write_tiny_adapter(tmp_path / "lora", shape=shape))
    with pytest.raises(AdapterBad, match=words):
        check_base(adapter, base)
    with pytest.raises(AdapterBad, match=words):
        merge(base, adapter, tmp_path / "out", disk=PosixDisk())
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_and_a_full_disk_are_said_before_any_work(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = open_checkpoint(tiny), open_adapter(write_tiny_adapter(tmp_path / "lora"))
    with pytest.raises(Conflict, match="there already"):
        merge(base, adapter, tmp_path, disk=PosixDisk())
    monkeypatch.setattr(PosixDisk, "free_bytes", lambda *_: 10)
    with pytest.raises(DiskFull, match="takes 0 MiB"):
        merge(base, adapter, tmp_path / "out", disk=PosixDisk())


def test_an_interrupted_merge_leaves_nothing_and_can_be_repeated(tiny: Path, tmp_path: Path) -> None:
    base, adapter = open_checkpoint(tiny), open_adapter(write_tiny_adapter(tmp_path / "lora"))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(base, adapter, tmp_path / "out", disk=PosixDisk(), progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "lora"]
    merge(base, adapter, tmp_path / "out", disk=PosixDisk())


def test_the_command(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora = write_tiny_adapter(tmp_path / "lora")
    words = ["forge", "merge", str(tiny), "--adapter", str(lora), "--out", str(tmp_path / "merged"), "-o", "json"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert not ended.value.code
    shown = json.loads(capsys.readouterr().out)
    assert shown["matrices"] == 4
    assert shown["merged"] == open_checkpoint(tmp_path / "merged").digest.text
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == Conflict.exit_code
    assert issubclass(AdapterBad, DrupeletError)


ADAPTED = """
[[variants]]
name = "shop"
quantization = "f16"
file_format = "gguf-lora"
adapter = { folder = "lora", base = "whole" }
"""


def _recipe(adapted: str = ADAPTED) -> str:
    whole = RECIPE.replace('name = "small"', 'name = "whole"').replace("q4_k_m", "q8_0")
    head, tail = whole.split("[[canonical_prompts]]")
    return f"{head}{adapted}\n[[canonical_prompts]]{tail}"


def test_an_adapter_is_a_variant_that_is_judged_with_its_base_against_both_merged(
    tiny: Path, tmp_path: Path, runtime_folder: Path
) -> None:
    write_tiny_adapter(tmp_path / "lora")
    recipe, tools = parse_recipe(_recipe().encode()), fake_toolchain(tmp_path / "fake")
    adapters = {"shop": open_adapter(tmp_path / "lora")}
    gguf = ToolchainGguf(tools=tools, work=tmp_path / "work", now_ms=lambda: 1)
    line = Pipeline(
        release=ReleaseId(family("kiosk"), Version.parse("1.0")),
        recipe=recipe,
        recipe_digest=Digest.of_hex("ab" * 32),
        checkpoint=open_checkpoint(tiny),
        folder=tmp_path / "out",
        bench=Bench(disk=PosixDisk(), cache=tmp_path / "work", runtime_folder=runtime_folder),
        now_ms=lambda: 1,
        formats={"gguf": gguf, LORA: LoraFormat(tools=tools, adapters=adapters, now_ms=lambda: 1)},
    )
    report = line.measure()
    whole, shop = report.variants
    assert (whole.name, shop.name) == ("whole", "shop")
    assert whole.quality is not None
    assert shop.quality is not None
    # With its adapter left out, the base would be far from the merged reference.
    assert shop.quality.kl_mean < 0.05
    assert any("shop is compared with its adapter merged" in note for note in report.notes)
    steps = {step.name: step for step in line.ledger.steps}
    assert steps["convert adapter"].inputs["adapter"] == adapters["shop"].digest
    manifest = line.pack(report, override="its words are random").manifest
    assert manifest.variant("shop").adapter == AdapterOf(base="whole")
    assert (tmp_path / "out" / "shop.gguf-lora").stat().st_size == shop.size_bytes
    refused = unfit(manifest.variant("shop"), PI, context_tokens=64)
    assert refused is not None
    assert refused.reason is Reason.FORMAT_NOT_RUN, "a device that knows no adapters takes none"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            'base = "whole"',
            'base = "none"',
            "the adapter's base 'none' is no gguf variant of this recipe; use one of whole",
        ),
        ('quantization = "f16"', 'quantization = "q4_0"', "an adapter's own quantization is f16"),
        ('file_format = "gguf-lora"\n', "", "an adapter and file_format gguf-lora go together"),
        ('converter = "toolchain"', "", "adapters are made by llama.cpp's tools"),
    ],
)
def test_recipes_whose_adapters_cannot_be_meant(old: str, new: str, words: str) -> None:
    with pytest.raises(RecipeBad, match=words):
        parse_recipe(_recipe().replace(old, new).encode())


def test_an_adapter_that_the_tools_would_scale_in_another_way_is_refused(tiny: Path, tmp_path: Path) -> None:
    adapter = open_adapter(write_tiny_adapter(tmp_path / "lora", use_rslora=True))
    lora = LoraFormat(tools=fake_toolchain(tmp_path / "fake"), adapters={"shop": adapter}, now_ms=lambda: 1)
    with pytest.raises(Unsupported, match="merge it: drupelet forge merge"):
        lora.write(
            open_checkpoint(tiny),
            tmp_path / "shop.gguf-lora",
            quantization="f16",
            model_name="k",
            disk=PosixDisk(),
            progress=lambda *_: None,
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file_format": "gguf"}, "exactly if its file_format is gguf-lora"),
        ({"adapter": {"base": "none"}}, "is no GGUF variant of this release"),
        ({"adapter": {"base": "shop"}}, "is no GGUF variant of this release"),
    ],
)
def test_a_manifest_with_an_adapter_that_hangs_in_the_air_is_malformed(changes: dict[str, object], words: str) -> None:
    whole = examples.manifest().variants[0]
    shop = msgspec.structs.replace(whole, name="shop", file_format="gguf-lora", adapter=AdapterOf(base=whole.name))
    good = examples.manifest(variants=(whole, shop))
    assert decode(ReleaseManifest, encode_canonical(good)) == good
    crooked = json.loads(encode_canonical(good))
    crooked["variants"][1] |= changes
    with pytest.raises(Malformed, match=words):
        decode(ReleaseManifest, json.dumps(crooked).encode())

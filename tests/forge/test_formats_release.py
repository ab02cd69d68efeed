"""One release of the kiosk in every format, as a person makes it: built, evaluated, packed. `make formats-test`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupelet.cli.main import main
from drupelet.forge.toolchain.environments import ENVIRONMENTS
from drupelet.forge.toolchain.venvs import cache_folder
from drupelet.wire.codec import decode
from drupelet.wire.manifest import ReleaseManifest
from tests.forge.conftest import KIOSK

pytestmark = [pytest.mark.formats, pytest.mark.timeout(3600)]
KL_MAX = {"int4": 0.05, "int8": 0.005, "f32": 0.00001, "f16": 0.00001}
"""Nats a token. What is not quantized shows that nothing else was changed either."""
VARIANTS = [
    ("onnx", "int4"), ("onnx", "f32"), ("litert", "int8"), ("litert", "int4"), ("litert", "f32"), ("openvino", "int8"),
    ("openvino", "int4"), ("openvino", "f16"),
]  # fmt: skip


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = [name for name, venv in ENVIRONMENTS.items() if not venv.is_ready(cache_folder())]
    if missing:
        pytest.skip(f"not installed; run: drupelet forge toolchain build {' '.join(missing)}")
    folder = tmp_path_factory.mktemp("release")
    text = (KIOSK / "recipe.toml").read_text()
    head, rest = text[: text.index("[[variants]]")], text[text.index("[[stages]]") :]
    wanted = "".join(
        f'[[variants]]\nname = "{fmt}-{kind}"\nfile_format = "{fmt}"\nquantization = "{kind}"\n'
        f"quality = {{ kl_mean_max = {KL_MAX[kind]}, kl_p99_max = 2.0, top1_agreement_min = 0.95 }}\n"
        for fmt, kind in VARIANTS
    )
    (folder / "recipe.toml").write_text(head + wanted + rest)
    with pytest.raises(SystemExit) as ended:
        main(
            ["forge", "build", str(folder / "recipe.toml"), "--checkpoint", str(KIOSK / "1.2"), "--version", "1.2",
             "--out", str(folder / "package")]
        )  # fmt: skip
    assert not ended.value.code
    return folder / "package"


def _report(package: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((package / "report.json").read_bytes())
    return {variant["name"]: variant for variant in found["variants"]}


@pytest.mark.parametrize(("fmt", "kind"), VARIANTS)
def test_each_variant_is_evaluated_like_a_gguf_and_passes(package: Path, fmt: str, kind: str) -> None:
    seen = _report(package)[f"{fmt}-{kind}"]
    assert seen["quality"]["kl_mean"] <= KL_MAX[kind]
    assert seen["quality"]["top1_agreement"] >= 0.95
    assert seen["deterministic"]
    assert all(one["passed"] for one in seen["canonical"])
    assert len(seen["canonical"]) == 10
    assert seen["tokens_per_second"] > 0
    assert ENVIRONMENTS[fmt].requirements
    assert any(seen["runner"].replace(" ", "==") == asked for asked in ENVIRONMENTS[fmt].requirements)


def test_the_manifest_says_what_each_file_is_and_which_tools_made_it(package: Path) -> None:
    manifest = decode(ReleaseManifest, (package / "manifest.json").read_bytes())
    assert [(one.file_format, one.quantization) for one in manifest.variants] == VARIANTS
    assert len({one.digest for one in manifest.variants}) == len(VARIANTS), "a quantization that changes nothing"
    for one in manifest.variants:
        assert (package / f"{one.name}.{one.file_format}").stat().st_size == one.size_bytes
        assert one.lock is None
    assert manifest.evaluation.passed

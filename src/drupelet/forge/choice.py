"""Which writer makes which file format of a recipe: Drupelet's own, or llama.cpp's tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from drupelet.forge.adapter import open_adapter
from drupelet.forge.calibration import read_calibration
from drupelet.forge.formats import FORMATS
from drupelet.forge.formats.lora import LORA, LoraFormat
from drupelet.forge.formats.port import Format
from drupelet.forge.formats.toolchain import ToolchainGguf
from drupelet.forge.recipe import Recipe
from drupelet.forge.toolchain.llamacpp import LlamaCpp
from drupelet.forge.toolchain.tools import Tools


def formats_for(
    recipe: Recipe, *, recipe_folder: Path, tools_cache: Path, work: Path, now_ms: Callable[[], int]
) -> Mapping[str, Format]:
    """Return the writers for a recipe that lies in `recipe_folder`; `work` keeps what is made once.

    Raises `ToolMissing` if the recipe asks for the toolchain and it is not built, `CalibrationBad` for its text,
    `AdapterBad` for an adapter.
    """
    if recipe.converter == "embedded":
        return FORMATS
    calibration = None
    if recipe.calibration is not None:
        calibration = read_calibration(recipe.calibration, beside=recipe_folder)
    tools = Tools(installed=LlamaCpp().open(tools_cache), logs=work / "logs", threads=0)
    adapters = {
        variant.name: open_adapter(recipe_folder / variant.adapter.folder)
        for variant in recipe.variants
        if variant.adapter is not None
    }
    return {
        **FORMATS,
        "gguf": ToolchainGguf(tools=tools, work=work, now_ms=now_ms, calibration=calibration),
        LORA: LoraFormat(tools=tools, adapters=adapters, now_ms=now_ms),
    }

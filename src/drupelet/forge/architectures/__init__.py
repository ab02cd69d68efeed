"""The architectures that the embedded converter knows, one file a family, registered by the names in `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from drupelet.forge.architectures.gemma import Gemma, Gemma2, Gemma3, Gemma3Text
from drupelet.forge.architectures.llama import Llama
from drupelet.forge.architectures.phi import Phi2, Phi3
from drupelet.forge.architectures.port import Decoder
from drupelet.forge.architectures.qwen import Qwen2, Qwen3
from drupelet.forge.errors import CheckpointBad, Unsupported

AnyDecoder = Decoder[Any]
ARCHITECTURES: Mapping[str, type[AnyDecoder]] = {
    name: kind for kind in (Llama, Qwen2, Qwen3, Gemma, Gemma2, Gemma3, Gemma3Text, Phi2, Phi3) for name in kind.NAMES
}
"""Name in `config.json` -> what the converter knows of it."""
TOOLCHAIN = 'set converter = "toolchain" in the recipe and run: drupelet forge toolchain build'


def open_decoder(name: str, fields: Mapping[str, Any], *, where: str) -> AnyDecoder:
    """Return the model that `config.json` describes.

    Raises `CheckpointBad` for a config that cannot be true, `Unsupported` for what the embedded converter lacks.
    """
    kind = ARCHITECTURES.get(name)
    if kind is None:
        fix = f"the embedded converter knows {', '.join(ARCHITECTURES)}; {TOOLCHAIN}"
        raise Unsupported(f"the architecture {name} is not supported", where=where, fix=fix)
    nested = fields.get(kind.NESTED, {})
    if not isinstance(nested, dict):
        raise CheckpointBad(f"{kind.NESTED} is not an object", where=where)
    try:
        model = kind(msgspec.convert({**fields, **nested}, kind.CONFIG))
    except msgspec.ValidationError as error:
        raise CheckpointBad(f"{error}", where=where) from error
    for what in model.contradictions():
        raise CheckpointBad(what, where=where)
    for what in model.unsupported():
        raise Unsupported(f"the embedded converter does not know {what}", where=where, fix=TOOLCHAIN)
    model.extra()  # raises for numbers that are none
    return model

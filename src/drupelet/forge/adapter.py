"""A LoRA adapter in PEFT's layout, opened without trust and held against the base it is for.

An adapter is a pair of thin matrices for each matrix of the base that it changes: W becomes W + scale * B @ A. One that
was made for another base of the same shapes cannot be told apart by looking: the evaluation's questions do that. What
can be told is refused here, with what differs: matrices that the base does not have, other shapes, another rank than
the config says, another name.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from drupelet.core.names import Digest
from drupelet.forge.checkpoint import CONFIG_BYTES_MAX, Checkpoint, read_bounded
from drupelet.forge.errors import AdapterBad, Unsupported
from drupelet.forge.safetensors import Tensor, parse_json, read_header

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_HALF = re.compile(r"^(?P<module>.+)\.lora_(?P<half>[AB])(\.default)?\.weight$")
_HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
_NAMED_MAX = 3


class AdapterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of `adapter_config.json` that decide what an adapter computes (PEFT's LoraConfig)."""

    peft_type: str
    r: Annotated[int, Meta(ge=1, le=4096)]
    lora_alpha: Annotated[float, Meta(gt=0, le=65536)]
    base_model_name_or_path: str | None = None
    target_modules: list[str] | str | None = None
    use_rslora: bool = False
    use_dora: bool = False
    bias: str = "none"
    fan_in_fan_out: bool = False
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What changes one matrix of the base: `down` is A, of shape (rank, columns), `up` is B, of shape (rows, rank)."""

    target: str
    """The base's tensor, such as `model.layers.0.self_attn.q_proj.weight`."""
    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        """Columns of B, rows of A."""
        return self.down.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter whose config, names and shapes agree."""

    folder: Path
    config: AdapterConfig
    pairs: dict[str, Pair]
    """By the base's tensor."""
    digest: Digest
    """Of the names and bytes of its two files."""

    def scale(self, pair: Pair) -> float:
        """Return what B @ A is multiplied with."""
        return self.config.lora_alpha / (math.sqrt(pair.rank) if self.config.use_rslora else pair.rank)


def open_adapter(folder: Path) -> Adapter:
    """Open the adapter in `folder`. Raises `AdapterBad` for damage, `Unsupported` for kinds that are not known."""
    path, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    if not path.is_file():
        raise AdapterBad(f"there is no {CONFIG_FILE}: not an adapter in PEFT's layout", where=str(folder))
    data = read_bounded(path, CONFIG_BYTES_MAX)
    config = _config(parse_json(data, where=str(path)), where=str(path))
    if not weights.is_file():
        if (folder / "adapter_model.bin").exists():
            fix = "save the adapter as safetensors; reading a pickle can run any code"
            raise Unsupported("adapter_model.bin is a pickle, which is never opened", where=str(folder), fix=fix)
        raise AdapterBad(f"there is no {WEIGHTS_FILE}", where=str(folder))
    pairs = _pairs(read_header(weights), config, where=str(weights))
    lines = [f"{hashlib.sha256(data).hexdigest()}  {CONFIG_FILE}\n"]
    with weights.open("rb") as file:
        lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {WEIGHTS_FILE}\n")
    digest = Digest.of_hex(hashlib.sha256("".join(lines).encode()).hexdigest())
    return Adapter(folder=folder, config=config, pairs=pairs, digest=digest)


def check_base(adapter: Adapter, base: Checkpoint) -> None:
    """Raise `AdapterBad`, saying what differs, if `adapter` cannot be for `base`."""
    where = str(adapter.folder)
    fix = "give the base that the adapter was trained on"
    theirs, ours = adapter.config.base_model_name_or_path or "", str(base.fields.get("_name_or_path") or "")
    # Local paths say where somebody's disk had it; only two names of a hub can contradict each other.
    if _HUB_NAME.match(theirs) and _HUB_NAME.match(ours) and theirs.lower() != ours.lower():
        raise AdapterBad(f"it is for {theirs}, and the base is {ours}", where=where, fix=fix)
    absent = sorted(name for name in adapter.pairs if name not in base.tensors)
    if absent:
        more = f" and {len(absent) - _NAMED_MAX} more" if len(absent) > _NAMED_MAX else ""
        raise AdapterBad(f"the base has no {', '.join(absent[:_NAMED_MAX])}{more}", where=where, fix=fix)
    for name, pair in adapter.pairs.items():
        wanted = (pair.up.shape[0], pair.down.shape[1])
        if base.tensors[name].shape != wanted:
            found = list(base.tensors[name].shape)
            raise AdapterBad(f"it changes {name} of shape {list(wanted)}, the base's is {found}", where=where, fix=fix)


def _config(fields: dict[str, Any], *, where: str) -> AdapterConfig:
    try:
        config = msgspec.convert(fields, AdapterConfig)
    except msgspec.ValidationError as error:
        raise AdapterBad(f"{error}", where=where) from error
    for wrong, what in (
        (config.peft_type != "LORA", f"the kind {config.peft_type[:40]!r}"),
        (config.use_dora, "DoRA"),
        (config.bias != "none", "trained biases"),
        (config.fan_in_fan_out, "transposed matrices (fan_in_fan_out)"),
        (bool(config.modules_to_save), "modules that are saved whole (modules_to_save)"),
        (bool(config.alpha_pattern), "an alpha for each module (alpha_pattern)"),
    ):
        if wrong:
            raise Unsupported(f"adapters with {what} are not known", where=where, fix="train a plain LoRA")
    return config


def _pairs(tensors: dict[str, Tensor], config: AdapterConfig, *, where: str) -> dict[str, Pair]:
    """Return the pairs of an adapter's tensors, each A with its B."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = _HALF.match(name)
        if found is None:
            raise Unsupported(
                f"tensor {name[:200]!r} is neither lora_A nor lora_B", where=where, fix="train a plain LoRA"
            )
        halves.setdefault(found["module"].removeprefix(_PREFIX), {})[found["half"]] = tensor
    if not halves:
        raise AdapterBad("it changes nothing", where=where)
    pairs = {}
    for module, both in sorted(halves.items()):
        if both.keys() != {"A", "B"}:
            raise AdapterBad(f"{module[:200]} has only its lora_{next(iter(both))}", where=where)
        down, up = both["A"], both["B"]
        if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != up.shape[1]:
            what = f"{module[:200]} has A of shape {list(down.shape)} and B of shape {list(up.shape)}"
            raise AdapterBad(f"{what}, which do not multiply", where=where)
        if not config.rank_pattern and down.shape[0] != config.r:
            raise AdapterBad(f"{module[:200]} is of rank {down.shape[0]}, its config says {config.r}", where=where)
        name = f"{module}.weight"
        pairs[name] = Pair(target=name, down=down, up=up)
    return pairs


def describe(adapter: Adapter) -> str:
    """Return the adapter in a line, as JSON for the ledger."""
    modules = sorted({name.split(".")[-2] for name in adapter.pairs})
    return json.dumps({"alpha": adapter.config.lora_alpha, "modules": modules, "rank": adapter.config.r})

"""LoRA adapters as files of their own, `gguf-lora`: made by llama.cpp's tools, applied to another variant.

Implements `Format`. Which adapter a variant is says its name, which is the file's stem.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from drupelet.core.errors import BadInput
from drupelet.durable.port import Disk, hash_file
from drupelet.forge.adapter import Adapter, check_base, describe
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.errors import Unsupported
from drupelet.forge.formats.port import Artifact, Progress
from drupelet.forge.ledger import Step
from drupelet.forge.toolchain.port import Toolchain

LORA = "gguf-lora"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFormat:
    """Writes the adapters of one recipe, by the variants' names."""

    tools: Toolchain
    adapters: Mapping[str, Adapter]
    now_ms: Callable[[], int]
    name: str = LORA
    quantizations: tuple[str, ...] = ("f16",)

    def write(
        self, checkpoint: Checkpoint, out: Path, *, quantization: str, model_name: str, disk: Disk, progress: Progress
    ) -> Artifact:
        """Write the adapter of the variant `out` is named for. Raises `AdapterBad` if it is for another base."""
        del model_name  # an adapter has its base's
        adapter = self.adapters.get(out.stem)
        if adapter is None or quantization not in self.quantizations:
            raise BadInput(f"there is no adapter for {out.stem} in {quantization}", fix="name its folder in the recipe")
        check_base(adapter, checkpoint)
        if adapter.config.use_rslora:
            what = "an adapter with use_rslora cannot be a file of its own: llama.cpp would scale it in another way"
            raise Unsupported(what, where=str(adapter.folder), fix="merge it: drupelet forge merge")
        began, part = self.now_ms(), out.with_name(out.name + ".part")
        disk.part(part).close()  # makes the folder
        disk.remove(part)
        progress(f"converting the adapter {out.stem}", 0, 1)
        try:
            self.tools.convert_adapter(adapter.folder, checkpoint.files, part)
            digest, size = hash_file(disk, part)
        except BaseException:
            disk.remove(part)
            raise
        disk.publish(part, out)
        step = Step(
            name="convert adapter",
            tool=self.tools.version,
            tool_digest=self.tools.converter_digest,
            parameters={"adapter": describe(adapter)},
            inputs={"checkpoint": checkpoint.digest, "adapter": adapter.digest},
            outputs={out.name: digest},
            began_at_ms=began,
            ended_at_ms=self.now_ms(),
        )
        return Artifact(path=out, digest=digest, size_bytes=size, quantization=quantization, steps=(step,))

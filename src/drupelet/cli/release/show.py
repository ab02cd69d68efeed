"""`drupelet release show`: one release, of the fleet or in files."""

from __future__ import annotations

from typing import Any

from drupelet.cli.api import NO_SERVER, Api, Server, Token
from drupelet.cli.output import Format, Output, show
from drupelet.cli.release.server import evaluation
from drupelet.cli.release.source import Source, as_file, manifest_of, of_fleet
from drupelet.wire.manifest import ReleaseManifest, Variant

Rows = list[tuple[str, object]]
_MIB = 1 << 20


def show_one(release: Source, server: Server = NO_SERVER, token: Token = "", output: Output = Format.TABLE) -> None:
    """Show a release: its evaluation, its variants, and, on the fleet, who has it and whether it is condemned.

    Example: drupelet release show kiosk/1.2
    """
    value: Any
    if as_file(release) is not None:
        value = manifest_of(release, server=server, token=token)
        rows = of_manifest(value)
    else:
        where = of_fleet(release)
        value = Api(server, token).get(where)
        rows = _of_fleet(value)
    show(value, output=output, columns=("what", "is"), rows=rows)


def _of_fleet(found: dict[str, Any]) -> Rows:
    condemned = f"condemned by {found['condemned_by']}: {found['condemned_reason']}" if found["condemned"] else "good"
    return [
        ("release", found["id"]),
        ("summary", found["summary"]),
        ("evaluation", evaluation(found)),
        *(("finding", text) for text in found["findings"]),
        ("manifest", found["manifest_digest"]),
        ("devices", found["devices"]),
        ("state", condemned),
        *((v["name"], f"{v['quantization']}, {v['size_bytes']} bytes, {v['digest']}") for v in found["variants"]),
    ]


def of_manifest(manifest: ReleaseManifest) -> Rows:
    """Return what a manifest says, for a table of two columns."""
    judged = manifest.evaluation
    verdict = f"OVERRIDDEN: {judged.overridden}" if judged.overridden else "passed" if judged.passed else "FAILED"
    needs = manifest.requires
    required = [f"runtime {needs.runtime_min}", f"firmware {needs.firmware_min}", f"driver {needs.driver}"]
    return [
        ("release", manifest.release.path),
        ("model", manifest.model),
        ("summary", manifest.summary),
        ("evaluation", verdict),
        *(("finding", text) for text in judged.findings),
        *((f"variant {variant.name}", _variant(variant, manifest.context_tokens)) for variant in manifest.variants),
        ("context", f"{manifest.context_tokens} tokens"),
        ("requires", ", ".join(text for text in required if not text.endswith(" "))),
        ("prompts", f"{len(manifest.canonical_prompts)} canonical"),
        ("stages", ", ".join(stage.devices for stage in manifest.stages) or "none recommended"),
        ("checkpoint", manifest.provenance.checkpoint),
        ("recipe", manifest.provenance.recipe),
        ("made by", f"drupelet {manifest.provenance.forge_version}: {manifest.provenance.converter}"),
    ]


def _variant(variant: Variant, context_tokens: int) -> str:
    said = f"{variant.file_format} {variant.quantization}, {variant.size_bytes / _MIB:.1f} MiB"
    said += f", {variant.memory_bytes(context_tokens) / _MIB:.0f} MiB of memory"
    if variant.quality is not None:
        said += f", KL {variant.quality.kl_mean:.5f}, top-1 {variant.quality.top1_agreement:.1%}"
    return f"{said}{', needs an NPU' if variant.npu_required else ''}, {variant.digest}"

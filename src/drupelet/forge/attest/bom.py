"""The bill of materials: CycloneDX 1.6 for machine learning, made from the manifest, the recipe's card and the ledger.

cyclonedx-python-lib knows no model cards, so the document is written here and held to the library's copy of the schema,
when it is made and when it is verified. The same inputs give the same bytes: the serial number is drawn from them.
"""

from __future__ import annotations

import functools
import json
import sys
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import packages_distributions, version
from typing import Any

from drupelet import __version__
from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.forge.attest.statement import canonical, file_of, written_ms
from drupelet.forge.ledger import Step
from drupelet.forge.recipe import ModelCard
from drupelet.wire.manifest import Quality, ReleaseManifest, Variant

SPEC_VERSION = "1.6"
BOM_BYTES_MAX = 4 << 20
_NAMESPACE = uuid.UUID("6f1e2b52-8a2e-5d0a-9b11-3a4b8e1f7c60")
"""Serial numbers are drawn in it (UUID version 5) from what the release is."""

Tree = dict[str, Any]


def bill_of_materials(
    draft: ReleaseManifest,
    steps: Sequence[Step],
    *,
    card: ModelCard,
    architecture: str,
    packages: Mapping[str, str],
) -> bytes:
    """Return the BOM of a release whose manifest is not signed yet. `packages` are the Python packages that made it.

    Raises `BadInput` if what the recipe's card says is not what the schema allows, such as an unknown licence.
    """
    name = draft.release.path
    variants = [_variant(variant) for variant in draft.variants]
    datasets = [_dataset(card, index) for index in range(len(card.datasets))]
    tools = [_tool(step) for step in _programs(steps)]
    libraries = [_package(package, packages[package]) for package in sorted(packages)]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, _what(draft))}",
        "version": 1,
        "metadata": {
            "timestamp": written_ms(draft.created_at_ms),
            "tools": {"components": [{"type": "application", "name": "drupelet", "version": __version__}]},
            "component": _model(draft, card, architecture, [one["bom-ref"] for one in datasets]),
        },
        "components": [*variants, _checkpoint(draft), *datasets, *tools, *libraries],
        "dependencies": [
            {"ref": name, "dependsOn": sorted(one["bom-ref"] for one in variants)},
            *(
                {"ref": one["bom-ref"], "dependsOn": sorted(["checkpoint", *(tool["bom-ref"] for tool in tools)])}
                for one in variants
            ),
        ],
    }
    data = canonical(document)
    validate(data)
    return data


def running_packages() -> dict[str, str]:
    """Return the Python packages that this process has loaded, with their versions."""
    tops = {name.partition(".")[0] for name in sys.modules}
    owners = {owner for top, found in packages_distributions().items() if top in tops for owner in found}
    return {owner: version(owner) for owner in sorted(owners) if owner != "drupelet"}


def validate(
    data: bytes,
    *,
    where: str = "bom.cdx.json",
    bytes_max: int = BOM_BYTES_MAX,
    versions: Sequence[str] = (SPEC_VERSION,),
) -> Tree:
    """Return the document if it is CycloneDX of one of `versions`. Raises `BadInput`."""
    if len(data) > bytes_max:
        raise BadInput(f"the bill of materials has {len(data)} bytes where {bytes_max} are allowed", where=where)
    try:
        text = data.decode()
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput("not JSON, or cut short", where=where) from error
    said = document.get("specVersion") if isinstance(document, dict) else None
    if not isinstance(document, dict) or said not in versions:
        raise BadInput(f"not CycloneDX {' or '.join(versions)}: it says version {str(said)[:20]}", where=where)
    wrong = _validator(str(said)).validate_str(text)
    if wrong is not None:
        told = getattr(wrong, "data", wrong)
        what = " ".join(str(getattr(told, "message", told)).split())[:200]
        raise BadInput(f"not CycloneDX {said}: {what}", where=where)
    return document


@functools.cache
def _validator(release: str) -> Any:
    """Return the library's validator of a version; it takes a second to make."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.from_version(release))


def variant_digests(document: Tree) -> dict[str, str]:
    """Return the variants' file names and SHA-256 (hex) in a valid BOM."""
    found = {}
    for component in document.get("components", ()):
        if component["type"] == "machine-learning-model" and component.get("bom-ref", "").startswith("variant:"):
            hashes = {one["alg"]: one["content"] for one in component.get("hashes", ())}
            found[str(component["name"])] = str(hashes.get("SHA-256", ""))
    return found


def release_in(document: Tree) -> str:
    """Return which release a valid BOM says it is about."""
    component = document.get("metadata", {}).get("component", {})
    return str(component.get("bom-ref", ""))


def _what(draft: ReleaseManifest) -> str:
    digests = " ".join(variant.digest for variant in draft.variants)
    return f"{draft.release.path} {draft.created_at_ms} {digests}"


def _hashes(digest: str) -> list[Tree]:
    return [{"alg": "SHA-256", "content": Digest.parse(digest).hex}]


def _properties(found: Mapping[str, object]) -> list[Tree]:
    return [{"name": f"drupelet:{name}", "value": str(value)} for name, value in found.items()]


def _licences(expression: str) -> Tree:
    """Return a licence as CycloneDX has it; nothing if none was said."""
    return {"licenses": [{"expression": expression}]} if expression else {}


def _model(draft: ReleaseManifest, card: ModelCard, architecture: str, datasets: Sequence[str]) -> Tree:
    judged = draft.evaluation
    model: Tree = {
        "type": "machine-learning-model",
        "bom-ref": draft.release.path,
        "name": draft.family,
        "version": draft.version,
        **({"description": draft.summary} if draft.summary else {}),
        **_licences(card.license),
        "pedigree": {
            "ancestors": [
                {"type": "machine-learning-model", "name": "checkpoint", "hashes": _hashes(draft.provenance.checkpoint)}
            ]
        },
        "modelCard": {
            "modelParameters": {
                "task": "text-generation",
                "architectureFamily": "transformer",
                "modelArchitecture": architecture,
                "datasets": [{"ref": one} for one in datasets],
                "inputs": [{"format": "text"}],
                "outputs": [{"format": "text"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(draft.variants)},
            "considerations": {
                "useCases": list(card.uses),
                "technicalLimitations": list(card.limitations),
            },
            "properties": _properties(
                {
                    "context_tokens": draft.context_tokens,
                    "evaluation": f"overridden: {judged.overridden}" if judged.overridden else "passed",
                }
            ),
        },
    }
    if card.source:
        model["externalReferences"] = [{"type": "distribution", "url": card.source}]
    return model


def _metrics(variants: Sequence[Variant]) -> list[Tree]:
    found = []
    for variant in variants:
        quality = variant.quality
        for what, value in _numbers(quality) if quality is not None else ():
            found.append({"type": what, "value": f"{value:.6g}", "slice": file_of(variant)})
    return found


def _numbers(quality: Quality) -> list[tuple[str, float]]:
    return [
        ("KL divergence to f16, mean, nats a token", quality.kl_mean),
        ("KL divergence to f16, p99, nats a token", quality.kl_p99),
        ("KL divergence to f16, worst, nats a token", quality.kl_max),
        ("top-1 agreement with f16", quality.top1_agreement),
    ]


def _variant(variant: Variant) -> Tree:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"variant:{variant.name}",
        "name": file_of(variant),
        "hashes": _hashes(variant.digest),
        "properties": _properties(
            {
                "size_bytes": variant.size_bytes,
                "file_format": variant.file_format,
                "quantization": variant.quantization,
                "npu_required": str(variant.npu_required).lower(),
            }
        ),
    }


def _checkpoint(draft: ReleaseManifest) -> Tree:
    return {
        "type": "machine-learning-model",
        "bom-ref": "checkpoint",
        "name": "checkpoint",
        "description": "What the variants were made from; the hash is that of the list of its files' hashes.",
        "hashes": _hashes(draft.provenance.checkpoint),
    }


def _dataset(card: ModelCard, index: int) -> Tree:
    data = card.datasets[index]
    contents = {"contents": {"url": data.url}} if data.url else {}
    return {
        "type": "data",
        "bom-ref": f"data:{index + 1}",
        "name": data.name,
        **_licences(data.license),
        "data": [{"type": "dataset", "name": data.name, **contents}],
    }


def _programs(steps: Sequence[Step]) -> list[Step]:
    """Return one step for each tool, in order of appearance."""
    return list({step.tool: step for step in steps}.values())


def _tool(step: Step) -> Tree:
    name, _, release = step.tool.rpartition(" ")
    hashes = {"hashes": _hashes(step.tool_digest.text)} if step.tool_digest is not None else {}
    named = {"name": name, "version": release} if name else {"name": step.tool}
    return {"type": "application", "bom-ref": f"tool:{step.tool}", **named, **hashes}


def _package(name: str, release: str) -> Tree:
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{release.replace('+', '%2B')}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": release, "purl": purl}

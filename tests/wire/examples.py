"""Small valid messages to vary in tests."""

from __future__ import annotations

from drupelet.core.states import Mode
from drupelet.wire.manifest import (
    CanonicalPrompt,
    Evaluation,
    Expectation,
    MemoryAt,
    Provenance,
    ReleaseManifest,
    Variant,
)
from drupelet.wire.orders import Crossover, Order

DIGEST = "sha256:" + "ab" * 32


def manifest(**changes: object) -> ReleaseManifest:
    """A manifest with one variant and one canonical prompt."""
    fields: dict[str, object] = {
        "family": "kiosk",
        "version": "1.2",
        "model": "kiosk",
        "created_at_ms": 1_790_000_000_000,
        "context_tokens": 512,
        "variants": (
            Variant(
                name="q8_0",
                digest=DIGEST,
                size_bytes=2_200_000,
                quantization="Q8_0",
                memory=(MemoryAt(context_tokens=512, memory_bytes=60_000_000),),
            ),
        ),
        "canonical_prompts": (
            CanonicalPrompt(
                id="hours", prompt="When do you open?", expect=(Expectation(kind="contains", value="nine"),)
            ),
        ),
        "evaluation": Evaluation(passed=True),
        "provenance": Provenance(checkpoint=DIGEST, recipe=DIGEST, forge_version="0.1.0", converter="embedded"),
    }
    return ReleaseManifest(**(fields | changes))  # type: ignore[arg-type]


def order(**changes: object) -> Order:
    """A canary order."""
    fields: dict[str, object] = {
        "device": "lab-1",
        "serial": 3,
        "mode": Mode.CANARY,
        "release": "kiosk/1.2",
        "manifest": DIGEST,
        "variants": ("q8_0",),
        "rollout": 1,
        "crossover": Crossover(block_ms=3000, discard_ms=500),
    }
    return Order(**(fields | changes))  # type: ignore[arg-type]

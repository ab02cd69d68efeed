"""What a GGUF says and holds, in a form that can be kept beside the tests and compared."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import gguf

GOLDEN = Path(__file__).parents[1] / "golden" / "convert"
_LONG = 64
_OURS = ("general.name", "general.size_label")
"""Settings that name a model and change nothing."""


def lines(kinds: dict[str, Any]) -> str:
    """Return facts as JSON, one setting or tensor a line, so that a change is easy to see."""
    parts = []
    for kind, found in kinds.items():
        inner = [
            f'  "{part}": {{\n'
            + ",\n".join(f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in table.items())
            for part, table in found.items()
        ]
        parts.append(f' "{kind}": {{\n' + "\n  },\n".join(inner) + "\n  }\n }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def facts(path: Path) -> dict[str, Any]:
    """Return `settings` (long ones by digest) and `tensors` (kind, shape, digest of bytes) of a GGUF file."""
    reader = gguf.GGUFReader(path)
    settings = {}
    for name, known in reader.fields.items():
        if name.startswith("GGUF.") or name in _OURS:
            continue
        value = known.contents()
        text = json.dumps(value, ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest()
        settings[name] = value if len(text) <= _LONG else f"{len(value)} long, sha256 {digest}"
    tensors = {
        tensor.name: [
            tensor.tensor_type.name,
            [int(size) for size in tensor.shape],
            hashlib.sha256(tensor.data.tobytes()).hexdigest(),
        ]
        for tensor in reader.tensors
    }
    return {"settings": settings, "tensors": tensors}

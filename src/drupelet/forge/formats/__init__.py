"""The file formats a release may be made of, one module each, registered by name."""

from __future__ import annotations

from collections.abc import Mapping

from drupelet.forge.formats import hef, litert, onnx, openvino
from drupelet.forge.formats.gguf import GgufFormat
from drupelet.forge.formats.port import Format

_ALL: tuple[Format, ...] = (GgufFormat(), onnx.FORMAT, litert.FORMAT, openvino.FORMAT, hef.FORMAT)

FORMATS: Mapping[str, Format] = {fmt.name: fmt for fmt in _ALL}
"""Format name, as the manifest writes it -> its writer."""

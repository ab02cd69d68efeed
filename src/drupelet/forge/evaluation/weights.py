"""Every block of weights of a GGUF against the reference's: what prompts did not touch is looked at too.

Logits show a fault where an evaluation's prompts go. Two swapped rows of rare tokens, one block whose scale was lost in
a layer of billions: the distance may not show them, a user will. So each tensor is unpacked, piece by piece, and each
block of 32 numbers is compared with the reference's same block.

How far an honest one may be follows from its bits. Rounding to b bits leaves a squared error of about 1.8 x 4^-b of the
squared size (the kiosk: 0.000024 at 8 bits, 0.007 at 4); eight times that is more than any honest quantizer's median,
importance matrices included. So a small adapter merged by mistake shows in an 8-bit file, and a block that is off by
its whole size in any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from drupelet.forge.checkpoint import Checkpoint

Array = NDArray[np.float32]
BLOCK = 32
LOST_MIN = 0.5
"""Squared error of a block, as a share of its squared size, from which it counts as another block at any number of
bits. Of the kiosk's Q4_0 the worst block has 0.03; a block of zeros has 1."""
_USUAL = 8.0
_WHOLE_MAX = 1e-4
"""Least allowed median: f16 and bf16 round too."""
_BLOCK_TIMES = 100.0
"""How much farther than the median's limit a single block may be: an outlier in it takes the others' precision."""
EXACT_MAX = 0.001
"""The same for the f16 reference against its checkpoint."""
COARSE_MIN = 0.2
"""Where the median of a tensor's blocks is off by this much (1- to 2-bit kinds), single blocks say nothing."""
_FLOOR = 0.02
"""Blocks far smaller than a tensor's average are measured against this share of that average."""
_PIECE = 1 << 21
_FREE_KEYS = ("general.", "quantize.", "GGUF.", "split.")
"""What two files of one model may say differently: names, file type, how they were quantized."""
_NAMED_MAX = 3


def weight_findings(reference: Path, variant: Path) -> list[str]:
    """Return what in `variant` (a GGUF) is not the reference's: settings, tensors, blocks. At most three of each."""
    ours, theirs = gguf.GGUFReader(reference), gguf.GGUFReader(variant)
    return [*_setting_findings(ours, theirs), *_tensor_findings(ours, theirs)]


def row_findings(reference: Path, checkpoint: Checkpoint) -> list[str]:
    """Return which tensors of the f16 reference hold rows that no tensor of the checkpoint has.

    A converter renames tensors and reorders rows; it changes no row of a matrix. So each tensor is reduced to the sum
    of its rows' hashes, whatever their order: together with a forward pass, which sees the order, nothing is left out.
    Vectors may be added to (Gemma's norms) and computed from the config (Llama 3's rope), as the architecture says.
    """
    model = checkpoint.model
    source = {
        _fingerprint(piece + np.float32(model.change(name).add if model is not None else 0) for piece in tensor.rows())
        for name, tensor in checkpoint.tensors.items()
    }
    source |= {_fingerprint(iter([values])) for values in (model.extra() if model is not None else {}).values()}
    wrong = []
    for tensor in gguf.GGUFReader(reference).tensors:
        pieces = (piece.reshape(-1) if len(tensor.shape) == 1 else piece for piece in _pieces(tensor))
        if _fingerprint(pieces) not in source:
            wrong.append(str(tensor.name))
    return [f"weights: {name} has rows that no tensor of the checkpoint has" for name in wrong[:_NAMED_MAX]]


def _fingerprint(pieces: Iterator[Array]) -> tuple[int, int]:
    """Return the number of rows and the sum of their hashes. Matrices are compared as f16, vectors as they are."""
    count = total = 0
    for values in pieces:
        piece = values + np.float32(0)  # of the two zeros, one
        if piece.ndim > 1:
            with np.errstate(over="ignore"):
                rows = list(np.ascontiguousarray(piece.reshape(len(piece), -1), dtype=np.float16))
        else:
            rows = [np.sort(piece)]
        for row in rows:
            count += 1
            total += int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little")
    return count, total % (1 << 64)


def embedding_findings(reference: Path, checkpoint: Checkpoint) -> list[str]:
    """Return which rows of the embedding and the output matrix differ from the checkpoint's.

    A forward pass reads only the rows of the tokens that occur in it; these matrices are never reordered.
    """
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(reference).tensors}
    findings = []
    for name, source in (("token_embd.weight", "model.embed_tokens.weight"), ("output.weight", "lm_head.weight")):
        tensor, original = tensors.get(name), checkpoint.tensors.get(source)
        if tensor is None or original is None:
            continue
        rows = original.shape[0]
        if tuple(reversed([int(size) for size in tensor.shape])) != original.shape:
            shape = [int(size) for size in reversed(tensor.shape)]
            findings.append(f"weights: {name} has the shape {shape}, the checkpoint's {list(original.shape)}")
            continue
        first, wrong = 0, []
        for piece in original.rows():
            off = _off(piece, _rows(tensor, first, len(piece)))
            wrong += [first + int(row) for row in np.flatnonzero((off > EXACT_MAX).any(axis=1))]
            first += len(piece)
        if wrong:
            findings.append(
                f"weights: {len(wrong)} of {rows} rows of {name} are not the checkpoint's, first {wrong[0]}"
            )
    return findings


def _setting_findings(ours: Any, theirs: Any) -> list[str]:
    findings = []
    names = {name for name in ours.fields.keys() | theirs.fields.keys() if not name.startswith(_FREE_KEYS)}
    for name in sorted(names):
        a, b = ours.fields.get(name), theirs.fields.get(name)
        if a is None or b is None:
            who = "lacks" if b is None else "has"
            findings.append(f"settings: it {who} {name}, unlike the reference")
        elif not _same(a, b):
            findings.append(f"settings: {name} is {_value(b)} where the reference has {_value(a)}")
    return findings[:_NAMED_MAX]


def _same(a: Any, b: Any) -> bool:
    return len(a.parts) == len(b.parts) and all(
        first.shape == second.shape and bool((first == second).all())
        for first, second in zip(a.parts[1:], b.parts[1:], strict=True)
    )


def _value(field: Any) -> str:
    if len(field.data) != 1:
        return f"a list of {len(field.data)}"
    value = field.contents()
    return repr(value if not isinstance(value, str) else value[:60])


def _tensor_findings(ours: Any, theirs: Any) -> list[str]:
    known = {tensor.name: tensor for tensor in ours.tensors}
    found = {tensor.name: tensor for tensor in theirs.tensors}
    findings = [f"weights: the tensor {name} is missing" for name in known.keys() - found.keys()]
    findings += [f"weights: the tensor {name} is not the reference's" for name in found.keys() - known.keys()]
    for name in known.keys() & found.keys():
        a, b = known[name], found[name]
        if list(a.shape) != list(b.shape):
            findings.append(f"weights: {name} has the shape {list(map(int, b.shape))}, not {list(map(int, a.shape))}")
            continue
        off = np.concatenate([_off(x, y).ravel() for x, y in zip(_pieces(a), _pieces(b), strict=True)])
        middle = float(np.median(off))
        usual = _usual(b.tensor_type)
        lost = int((off > min(LOST_MIN, _BLOCK_TIMES * usual)).sum())
        if middle > LOST_MIN:
            findings.append(f"weights: {name} is another matrix than the reference's")
        elif middle > usual:
            kind = b.tensor_type.name
            off_by = f"{middle**0.5:.1%} of its size where {kind} is off by {usual**0.5:.1%} at most"
            findings.append(f"weights: {name} is off by {off_by}")
        elif lost and middle < COARSE_MIN:
            findings.append(f"weights: {lost} of {off.size} blocks of {name} are not the reference's")
    return sorted(findings)[:_NAMED_MAX]


def _usual(kind: Any) -> float:
    """Return the largest median of squared block errors that rounding to this kind explains."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    bits = 8 * size // block
    return min(LOST_MIN, max(_WHOLE_MAX, _USUAL * 4.0**-bits))


def _off(ours: Array, theirs: Array) -> NDArray[np.float64]:
    """Return each block's squared error over its squared size; a block with a NaN is off beyond measure."""
    width = BLOCK if ours.shape[-1] % BLOCK == 0 else ours.shape[-1]
    a, b = ours.reshape(len(ours), -1, width).astype(np.float64), theirs.reshape(len(theirs), -1, width)
    size = np.square(a).sum(axis=2)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.square(a - b).sum(axis=2)
    off: NDArray[np.float64] = error / np.maximum(size, max(_FLOOR * float(size.mean()), 1e-30))
    return np.nan_to_num(off, nan=np.inf)


def _pieces(tensor: Any) -> Iterator[Array]:
    """Yield a tensor's rows as float32, some megabytes at a time."""
    data = tensor.data if tensor.data.ndim > 1 else tensor.data.reshape(1, -1)
    data = data.reshape(-1, data.shape[-1])
    width = int(tensor.shape[0])
    step = max(1, _PIECE // max(1, width))
    for first in range(0, len(data), step):
        yield gguf.quants.dequantize(data[first : first + step], tensor.tensor_type).reshape(-1, width)


def _rows(tensor: Any, first: int, count: int) -> Array:
    """Return some rows of a matrix as float32."""
    found: Array = gguf.quants.dequantize(tensor.data[first : first + count], tensor.tensor_type)
    return found.reshape(count, -1)

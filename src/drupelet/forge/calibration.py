"""The text that tells an importance matrix which weights matter: read and judged before anything is converted.

A matrix made from noise spends bits on the wrong weights and nobody notices until the model answers, so a text that
cannot be meant is refused: bytes that are no UTF-8, NULs, or fewer bytes than the least number of tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from drupelet.core.names import Digest
from drupelet.forge.errors import CalibrationBad
from drupelet.forge.recipe import Calibration

TEXT_BYTES_MAX = 256 << 20
CHUNKS_MIN = 2
"""llama-imatrix refuses less text than two contexts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationText:
    """A text that was found good, and how it is to be read."""

    data: bytes
    digest: Digest
    context_tokens: int
    chunks: int


def read_calibration(wanted: Calibration, *, beside: Path) -> CalibrationText:
    """Return the calibration text of a recipe that lies in folder `beside`. Raises `CalibrationBad`."""
    if not wanted.file:
        return judge_text(wanted.text.encode(), wanted, where="calibration.text")
    path = beside / wanted.file
    try:
        with path.open("rb") as file:
            data = file.read(TEXT_BYTES_MAX + 1)
    except OSError as error:
        raise CalibrationBad(f"cannot be read: {error.strerror}", where=str(path)) from error
    return judge_text(data, wanted, where=str(path))


def judge_text(data: bytes, wanted: Calibration, *, where: str) -> CalibrationText:
    """Return `data` as a calibration text, or raise `CalibrationBad` saying where it stops being one."""
    if len(data) > TEXT_BYTES_MAX:
        raise CalibrationBad(f"larger than the {TEXT_BYTES_MAX >> 20} MiB allowed", where=where)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CalibrationBad(f"not UTF-8 at byte {error.start}", where=where, fix="save it as UTF-8") from error
    if (at := text.find("\0")) >= 0:
        line = text.count("\n", 0, at) + 1
        raise CalibrationBad(f"a NUL in line {line}: that is no text", where=where, fix="give plain text")
    # A token is a byte at the least, so fewer bytes than tokens can never be enough.
    least = CHUNKS_MIN * wanted.context_tokens
    if len(data) < least:
        what = f"{len(data)} bytes are too little for {CHUNKS_MIN} x {wanted.context_tokens} tokens"
        raise CalibrationBad(what, where=where, fix="give more text, or a smaller calibration.context_tokens")
    return CalibrationText(
        data=data,
        digest=Digest.of_hex(hashlib.sha256(data).hexdigest()),
        context_tokens=wanted.context_tokens,
        chunks=wanted.chunks,
    )

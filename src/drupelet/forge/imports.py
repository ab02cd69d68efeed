"""Models that somebody else converted: taken as variants, or as the reference, with every check a made one gets.

A GGUF's table of contents is proved (`gguf_reader`), held against its tensors, and every number in it is read
(`gguf_checks`). It is copied into the package and the copy is what was checked, so that a file which changes meanwhile
changes nothing. What it cannot be held to without its checkpoint, its tokenizer above all, the evaluation says.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gguf import GGMLQuantizationType as Kind
from gguf import LlamaFileType

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.durable.port import Disk
from drupelet.forge.checkpoint import Checkpoint, open_checkpoint
from drupelet.forge.errors import ModelFileBad, Unsupported
from drupelet.forge.formats.port import Artifact, Progress
from drupelet.forge.gguf_checks import check_model, check_numbers
from drupelet.forge.gguf_reader import GgufFile, read_gguf
from drupelet.forge.hef import read_hef
from drupelet.forge.shape import ModelShape

REFERENCES = ("f32", "bf16", "f16")
"""What others can be compared with: kinds that lose next to nothing."""
_COPY_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A GGUF file that passed every check."""

    file: GgufFile
    architecture: str
    quantization: str
    """As a recipe writes it: `f16`, `q4_k_m`."""
    shape: ModelShape


def examine(path: Path, *, progress: Progress = lambda _doing, _done, _total: None) -> Imported:
    """Check everything about a GGUF file, every weight included. Raises `ModelFileBad`."""
    file = read_gguf(path)
    shape = check_model(file)
    quantization = quantization_of(file)
    check_numbers(file, progress=progress)
    return Imported(
        file=file, architecture=str(file.settings["general.architecture"]), quantization=quantization, shape=shape
    )


def quantization_of(file: GgufFile) -> str:
    """Return what a file says it is quantized to. Raises `ModelFileBad` if its tensors say otherwise."""
    held = Counter(tensor.kind for tensor in file.tensors if len(tensor.shape) > 1)
    most = held.most_common(1)[0][0] if held else Kind.F32
    code = file.settings.get("general.file_type")
    if code is None:
        return most.name.lower()
    try:
        said = (
            LlamaFileType(code if isinstance(code, int) else -1)
            .name.lower()
            .removeprefix("mostly_")
            .removeprefix("all_")
        )
    except ValueError as error:
        raise ModelFileBad(f"general.file_type is {code!r:.40}, which is none", where=str(file.path)) from error
    base = re.sub(r"_(s|m|l|xl|xs)$", "", said) if "_k_" in said else said
    kinds = {kind.name.lower() for kind in held}
    # The mixed I-quants are made of several kinds, none of them named like the file.
    if base not in kinds and not said.startswith(("iq", "tq")):
        what = f"it says it is {said} and its matrices are {', '.join(sorted(kinds)) or 'missing'}"
        raise ModelFileBad(what, where=str(file.path), fix="the file was renamed or put together wrongly")
    return said


def import_gguf(path: Path, out: Path, *, quantization: str, disk: Disk, progress: Progress) -> Artifact:
    """Copy a GGUF to `out` and check the copy; it is whole and sound, or not there.

    Raises `ModelFileBad` (also if it is quantized otherwise than `quantization`) and the disk's errors.
    """
    part = out.with_name(out.name + ".part")
    digest, size = _copy(path, part, disk)
    try:
        found = examine(part, progress=progress)
        if found.quantization != quantization:
            what = f"it is {found.quantization} and the recipe calls it {quantization}"
            raise ModelFileBad(what, where=str(path), fix=f'write quantization = "{found.quantization}"')
    except ModelFileBad as error:
        disk.remove(part)
        raise ModelFileBad(error.what, where=str(path), fix=error.fix) from error
    disk.publish(part, out)
    return Artifact(path=out, digest=digest, size_bytes=size, quantization=quantization)


def import_hef(path: Path, out: Path, *, quantization: str, disk: Disk, progress: Progress) -> Artifact:
    """Copy a HEF to `out` and check the copy. Raises `ModelFileBad` and the disk's errors.

    `quantization` is taken as the recipe calls it: the file names no scheme that could be held against it.
    """
    part = out.with_name(out.name + ".part")
    digest, size = _copy(path, part, disk)
    try:
        found = read_hef(part)
    except ModelFileBad as error:
        disk.remove(part)
        raise ModelFileBad(error.what, where=str(path), fix=error.fix) from error
    progress(f"{found.path.stem} for {found.chips[0]}", size, size)
    disk.publish(part, out)
    return Artifact(path=out, digest=digest, size_bytes=size, quantization=quantization)


class Importer(Protocol):
    """Takes a file of one format as it is, once it has passed every check there is."""

    def __call__(self, path: Path, out: Path, *, quantization: str, disk: Disk, progress: Progress) -> Artifact:
        """Copy `path` to `out`: whole and sound, or not there."""
        ...


IMPORTERS: Mapping[str, Importer] = {"gguf": import_gguf, "hef": import_hef}
"""Format name -> who takes a file of it. Files of the other formats are made here, or not at all."""


def importer_of(file_format: str) -> Importer:
    """Return who takes files of a format, or raise `BadInput`."""
    found = IMPORTERS.get(file_format)
    if found is None:
        fix = f"leave `file` out to have it made here; taken as they are: {', '.join(IMPORTERS)}"
        raise BadInput(f"a file of the format {file_format} is not taken as it is", fix=fix)
    return found


def _copy(path: Path, part: Path, disk: Disk) -> tuple[Digest, int]:
    disk.remove(part)
    hashing = hashlib.sha256()
    try:
        with disk.part(part) as target, path.open("rb") as source:
            while data := source.read(_COPY_BYTES):
                hashing.update(data)
                target.write(data)
            size = target.size
    except FileNotFoundError as error:
        disk.remove(part)
        raise ModelFileBad("there is no such file", where=str(path)) from error
    return Digest.of_hex(hashing.hexdigest()), size


def open_source(path: Path) -> Checkpoint:
    """Return what a release is made from: a checkpoint's folder, or a GGUF file that others are compared with.

    Raises `CheckpointBad`, and `ModelFileBad` for a file that is no sound GGUF, or one too coarse to compare with.
    """
    return _of_file(path) if path.is_file() and path.suffix == ".gguf" else open_checkpoint(path)


def _of_file(path: Path) -> Checkpoint:
    found = examine(path)
    if found.quantization not in REFERENCES:
        what = f"it is {found.quantization}, and variants are compared with one of {', '.join(REFERENCES)}"
        raise ModelFileBad(what, where=str(path), fix="give the checkpoint, or a GGUF in f16")
    settings = found.file.settings
    hashing = hashlib.sha256()
    with path.open("rb") as source:
        while data := source.read(_COPY_BYTES):
            hashing.update(data)
    fix = 'give each variant a file of its own: `file = "model-q4_0.gguf"`, or build from the checkpoint'
    return Checkpoint(
        folder=path.parent,
        architecture=found.architecture,
        shape=found.shape,
        model=None,
        unknown=Unsupported("a GGUF is not converted again", where=str(path), fix=fix),
        tensors={},
        files=(path,),
        tokenizer=None,
        tokenizer_config=_tokenizer_config(settings),
        fields={},
        generation={},
        digest=Digest.of_hex(hashing.hexdigest()),
        model_file=path,
        quantization=found.quantization,
    )


def _tokenizer_config(settings: Any) -> dict[str, Any]:
    """Return what the file says of its tokenizer, as `tokenizer_config.json` would."""
    tokens = settings["tokenizer.ggml.tokens"]
    config: dict[str, Any] = {}
    for kind in ("bos", "eos", "unk"):
        token = settings.get(f"tokenizer.ggml.{'unknown' if kind == 'unk' else kind}_token_id")
        if isinstance(token, int):
            config[f"{kind}_token"] = tokens[token]
    if "tokenizer.chat_template" in settings:
        config["chat_template"] = settings["tokenizer.chat_template"]
    return config

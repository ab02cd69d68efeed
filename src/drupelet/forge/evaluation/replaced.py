"""The release that a new one replaces: read from its package or from a depot, and asked the same questions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import Digest, ReleaseId
from drupelet.depot.files import FilesDepot
from drupelet.durable.port import Disk
from drupelet.engine.spec import StartFailed
from drupelet.forge.errors import PackageBad
from drupelet.forge.evaluation.bench import Bench
from drupelet.forge.evaluation.judges import Judges
from drupelet.forge.evaluation.questions import ask, verdicts
from drupelet.forge.evaluation.regressions import Verdict
from drupelet.forge.recipe import Recipe
from drupelet.forge.runners.port import RunSpec
from drupelet.wire.codec import decode
from drupelet.wire.manifest import MANIFEST_NAME, ReleaseManifest, Variant

_RECORD_BYTES_MAX = 16 << 20
_MANIFESTS_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """A release and where its files lie."""

    manifest: ReleaseManifest
    files: Mapping[str, Path]
    """Variant -> its file, whose digest is checked before it runs."""

    def like(self, name: str, quantization: str) -> Variant | None:
        """Return the variant to compare with: of the same name, else of the same quantization, else none."""
        variants = [one for one in self.manifest.variants if self.files[one.name].exists()]
        named = next((one for one in variants if one.name == name), None)
        return named or next((one for one in variants if one.quantization == quantization), None)


def open_replaced(place: str, *, disk: Disk) -> Replaced:
    """Return the release at `place`: a package's folder, or `DEPOT:FAMILY/VERSION`. Raises `BadInput`, `NotFound`."""
    folder = Path(place).absolute()
    if folder.is_dir():
        path = folder / MANIFEST_NAME
        manifest = decode(ReleaseManifest, disk.read(path, bytes_max=ReleaseManifest.BYTES_MAX), where=str(path))
        return Replaced(
            manifest=manifest,
            files={one.name: folder / f"{one.name}.{one.file_format}" for one in manifest.variants},
        )
    depot, colon, named = place.rpartition(":")
    if not colon:
        raise NotFound("there is no such package", where=place, fix="name its folder, or DEPOT:FAMILY/VERSION")
    release = ReleaseId.parse(named)
    manifest = _in_depot(Path(depot).absolute(), release, disk)
    files = FilesDepot(disk, Path(depot).absolute())
    return Replaced(
        manifest=manifest, files={one.name: files.path(Digest.parse(one.digest)) for one in manifest.variants}
    )


def _in_depot(depot: Path, release: ReleaseId, disk: Disk) -> ReleaseManifest:
    """Return the newest manifest of the release in a depot's folder. Its file is named by its digest, and is that."""
    folder = depot / "targets" / release.path
    names = [name for name in disk.names(folder) if name.endswith(f".{MANIFEST_NAME}")] if folder.is_dir() else []
    if not names:
        raise NotFound(f"the depot has no release {release}", where=str(depot), fix="see `drupelet depot list`")
    newest = None
    for name in sorted(names)[:_MANIFESTS_MAX]:
        data = disk.read(folder / name, bytes_max=ReleaseManifest.BYTES_MAX)
        if hashlib.sha256(data).hexdigest() != name.removesuffix(f".{MANIFEST_NAME}"):
            raise PackageBad("the manifest is not what its name says", where=str(folder / name))
        manifest = decode(ReleaseManifest, data, where=str(folder / name))
        if newest is None or manifest.created_at_ms > newest.created_at_ms:
            newest = manifest
    if newest is None or newest.release != release:
        raise BadInput(f"the manifest is of another release than {release}", where=str(folder))
    return newest


def verdicts_before(
    replaced: Replaced, variant: Variant, recipe: Recipe, judges: Judges, bench: Bench
) -> tuple[Verdict, ...] | str:
    """Return how the replaced release answers this recipe's questions, or why that cannot be known. Kept by digest."""
    runner = bench.runners.get(variant.file_format)
    if runner is None:
        return f"nothing here runs files of the format {variant.file_format}"
    asked = [variant.digest, recipe.canonical_prompts, recipe.checks, recipe.context_tokens, judges.refusal_phrases]
    asked.append(judges.similarity is not None)
    key = hashlib.sha256(msgspec.json.encode(asked)).hexdigest()[:32]
    path = bench.cache / f"{key}.before.json"
    if bench.disk.exists(path):
        kept = bench.disk.read(path, bytes_max=_RECORD_BYTES_MAX)
        return msgspec.json.decode(kept, type=tuple[Verdict, ...])
    bench.progress(f"asking {replaced.manifest.release}, which is replaced")
    spec = RunSpec(
        model=replaced.files[variant.name],
        alias=recipe.model,
        context_tokens=recipe.context_tokens,
        threads=recipe.evaluation.threads,
        digest=Digest.parse(variant.digest),
    )
    try:
        with runner.start(spec, runtime_folder=bench.runtime_folder) as session:
            found = verdicts(ask(recipe, session, judges, plain_max=0))
    except StartFailed as error:
        return f"it does not run here: {error.what}"
    bench.disk.replace(path, msgspec.json.encode(found))
    return found

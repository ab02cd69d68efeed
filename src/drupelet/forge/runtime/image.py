"""The multi-arch OCI image: a context that any builder takes, and its build by `buildah`.

    OUT/context/Containerfile, base-<arch>.tar, <arch>/...     what is built
    OUT/oci/                                                    the image, an OCI layout with one index
    OUT/bom-<arch>.cdx.json                                     what is inside
    OUT/runtime.json                                            the manifest to sign

Every time in it is `epoch_s`; layers are packed by buildah in the order of names. The same inputs,
the compiled llama-servers among them, give the same digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeVar

import msgspec

import drupelet
from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.durable import PosixDisk
from drupelet.forge.errors import PackageBad
from drupelet.forge.runtime.base import PYTHON, SUITE, build_base
from drupelet.forge.runtime.bom import FILE, bill
from drupelet.forge.runtime.payload import Payload, build_payload, normalize
from drupelet.forge.toolchain.process import run
from drupelet.forge.toolchain.servers import Servers, Target, target_of
from drupelet.forge.toolchain.venvs import Progress, ToolMissing
from drupelet.wire.codec import decode_as

NAME = "drupelet"
_INDEX_BYTES_MAX = 1 << 20


class _Platform(msgspec.Struct, frozen=True):
    os: str
    architecture: str


class _Descriptor(msgspec.Struct, frozen=True):
    digest: str
    size: int
    platform: _Platform | None = None


class _Index(msgspec.Struct, frozen=True):
    manifests: tuple[_Descriptor, ...]


class _Manifest(msgspec.Struct, frozen=True):
    config: _Descriptor
    layers: tuple[_Descriptor, ...]


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformImage:
    """The image of one platform: its manifest's digest, and what a device downloads at most, in bytes."""

    platform: str
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A built image: the digest of its index, and its platforms by name."""

    layout: Path
    index: Digest
    platforms: tuple[PlatformImage, ...]


def write_context(
    out: Path,
    *,
    arches: Sequence[str],
    cache: Path,
    day: str,
    epoch_s: int,
    progress: Progress = lambda _doing: None,
) -> tuple[Payload, ...]:
    """Write `out/context` anew with all that the image is built from; return the payloads, by architecture.

    Raises `ToolMissing` if a platform's llama-server was not built or mmdebstrap is not there, `NoEmulation`,
    `BadInput` for an unknown architecture, `ToolFailed`.
    """
    if not arches:
        raise BadInput("an image needs an architecture", where="--arch", fix="use arm64, amd64 or both")
    targets = [target_of(arch) for arch in sorted(set(arches))]
    servers = {target.arch: servers_of(target, cache) for target in targets}
    context = out / "context"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    payloads = []
    for target in targets:
        base = build_base(cache, arch=target.arch, machine=target.machine, day=day, epoch_s=epoch_s, progress=progress)
        tree = context / target.arch
        payload = build_payload(
            tree, target=target, python=PYTHON, servers=servers[target.arch], scratch=out, progress=progress
        )
        inside = bill(payload, base=base.packages, suite=SUITE, epoch_s=epoch_s)
        for place in (tree / FILE, out / f"bom-{target.arch}.cdx.json"):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(inside)
        configuration = tree / "etc" / "drupelet" / "gateway.toml"
        configuration.parent.mkdir(parents=True)
        configuration.write_bytes((resources.files(__package__) / "gateway.toml").read_bytes())
        normalize(tree, epoch_s=epoch_s)
        _link_or_copy(base.tar, context / f"base-{target.arch}.tar")
        payloads.append(payload)
    (context / "Containerfile").write_bytes((resources.files(__package__) / "Containerfile").read_bytes())
    return tuple(payloads)


def build_image(
    out: Path, *, arches: Sequence[str], store: Path, epoch_s: int, progress: Progress = lambda _doing: None
) -> Image:
    """Build `out/context` into the OCI layout `out/oci` and return what it is. `store` is buildah's own folder.

    Raises `ToolMissing` without buildah, or `ToolFailed` with its words.
    """
    if shutil.which("buildah") is None:
        fix = "apt-get install buildah, or build OUT/context with docker buildx"
        raise ToolMissing("there is no buildah on the path", fix=fix)
    layout, log = out / "oci", out / "buildah.log"
    buildah = ["buildah", "--root", str(store / "storage"), "--runroot", str(store / "run"), "--storage-driver", "vfs"]
    platforms = ",".join(f"linux/{arch}" for arch in sorted(set(arches)))
    shutil.rmtree(layout, ignore_errors=True)
    log.unlink(missing_ok=True)
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    commands = (
        [
            *("bud", "--isolation", "chroot", "--platform", platforms, "--manifest", NAME, "--format", "oci"),
            *("--timestamp", str(epoch_s), "--build-arg", f"VERSION={drupelet.__version__}", "--no-cache"),
            *("--file", str(out / "context" / "Containerfile"), str(out / "context")),
        ],
        ["manifest", "push", "--all", NAME, f"oci:{layout}"],
    )
    try:
        for command, doing in zip(commands, ("building the image", "writing the image"), strict=True):
            progress(doing)
            run([*buildah, *command], log=log, doing=doing, environment=environment)
    finally:
        # The layers are in the layout now; a half-built image is nobody's.
        run([*buildah, "rmi", "--all", "--force"], log=log, doing="removing buildah's copies", environment=environment)
    order_platforms(layout)
    return read_image(layout)


def order_platforms(layout: Path) -> None:
    """Write the layout's index anew with its platforms in the order of names.

    buildah lists them in the order in which their parallel builds ended, so the same images had another digest.
    """
    top_path = layout / "index.json"
    top = json.loads(PosixDisk().read(top_path, bytes_max=_INDEX_BYTES_MAX))
    before = _blob(layout, Digest.parse(top["manifests"][0]["digest"]))
    index = json.loads(PosixDisk().read(before, bytes_max=_INDEX_BYTES_MAX))
    index["manifests"].sort(key=lambda one: (one["platform"]["os"], one["platform"]["architecture"]))
    data = json.dumps(index, separators=(",", ":")).encode()
    digest = Digest.of_hex(hashlib.sha256(data).hexdigest())
    top["manifests"][0] |= {"digest": digest.text, "size": len(data)}
    _blob(layout, digest).write_bytes(data)
    top_path.write_text(json.dumps(top))
    if before != _blob(layout, digest):
        before.unlink()


def read_image(layout: Path) -> Image:
    """Return what an OCI layout holds. Raises `BadInput` unless it is one index of single-platform manifests, and
    `PackageBad` if one of them is not what its name says. Layers are hashed when they are sent.
    """
    top = _read(_Index, layout / "index.json")
    if len(top.manifests) != 1:
        raise BadInput(f"{len(top.manifests)} images in one layout", where=str(layout), fix="build it again")
    index = Digest.parse(top.manifests[0].digest)
    entries = _read(_Index, _blob(layout, index), digest=index).manifests
    platforms = sorted((_platform(layout, entry) for entry in entries), key=lambda one: one.platform)
    return Image(layout=layout, index=index, platforms=tuple(platforms))


def _platform(layout: Path, entry: _Descriptor) -> PlatformImage:
    if entry.platform is None:
        raise BadInput(f"{entry.digest} is of no platform", where=str(layout), fix="build it again")
    digest = Digest.parse(entry.digest)
    manifest = _read(_Manifest, _blob(layout, digest), digest=digest)
    size = sum(part.size for part in (manifest.config, *manifest.layers))
    return PlatformImage(platform=f"{entry.platform.os}/{entry.platform.architecture}", digest=digest, size_bytes=size)


def _blob(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / "sha256" / digest.hex


def _read(kind: type[T], path: Path, *, digest: Digest | None = None) -> T:
    data = PosixDisk().read(path, bytes_max=_INDEX_BYTES_MAX)
    if digest is not None and hashlib.sha256(data).hexdigest() != digest.hex:
        raise PackageBad("this part of the image is damaged", where=str(path), fix="build it again")
    return decode_as(kind, data, where=str(path), name="OCI file")


def servers_of(target: Target, cache: Path) -> Path:
    """Return the folder of a target's llama-servers. Raises `ToolMissing` if they were not built here."""
    tool = Servers(target)
    if not tool.is_ready(cache):
        raise ToolMissing(
            f"the runtime's llama-server for {tool.target.arch} was not built here",
            where=str(tool.location(cache)),
            fix=f"run: drupelet forge toolchain build {tool.name}",
        )
    return tool.location(cache)


def _link_or_copy(source: Path, place: Path) -> None:
    try:
        place.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, place)

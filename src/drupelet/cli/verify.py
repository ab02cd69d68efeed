"""`drupelet verify`: everything a release claims, checked against the bytes, with an answer to file."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.compose.registry import registry_at
from drupelet.cli.depot.move import repository_at
from drupelet.cli.depot.places import depot_at
from drupelet.cli.output import Format, Output, say, show
from drupelet.cli.progress import Bar
from drupelet.core.errors import BadInput, NotFound, Untrusted
from drupelet.core.names import Digest, ReleaseId
from drupelet.depot.http import HttpFetch, HttpSource, checked_url
from drupelet.depot.oci.reference import is_registry
from drupelet.depot.ports import Source
from drupelet.durable import PosixDisk
from drupelet.forge.attest.answer import Answer, Verdict, as_markdown
from drupelet.forge.attest.beside import ENVELOPE_NAME, PUBLIC_KEY_NAME, SIGNATURE_NAME
from drupelet.forge.attest.dsse import ENVELOPE_BYTES_MAX
from drupelet.forge.attest.runtime import BuiltImage, ImageSource, PushedImage, verify_runtime
from drupelet.forge.attest.sources import Evidence, InDepot, InPackage, StoreFetch
from drupelet.forge.attest.verify import ATTACHMENT_BYTES_MAX, verify
from drupelet.trust.images import Images, parse_root
from drupelet.trust.ports import Fetch
from drupelet.wire.manifest import ATTACHMENT_FILES
from drupelet.wire.runtime import RUNTIME_FAMILY

ROOT_BYTES_MAX = 512 * 1024


def verify_release(
    release: Annotated[str, typer.Argument(help="Family and version, such as kiosk/1.2; or a package's folder.")],
    depot: Annotated[str, typer.Option("--depot", help="The depot: a folder, a URL, or a bucket such as s3://b.")] = "",
    root: Annotated[Path | None, typer.Option("--root", help="The image-root.json that your devices trust.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the answer as a page to file (Markdown).")] = None,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", help="Folder to save provenance, BOM and model signature in.")
    ] = None,
    image: Annotated[
        str, typer.Option("--image", help="Of a runtime: `drupelet forge image`'s folder, or oci:// and a repository.")
    ] = "",
    accept_unknown: Annotated[
        list[str] | None, typer.Option("--accept-unknown", help="A check that may remain without an answer.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Verify a release like a device would, and everything else it says of itself. Exit code 7 unless all of it holds.

    A runtime is verified too: runtime/0.1 with --image.

    Example: drupelet verify kiosk/1.2 --depot http://depot.local:8090 --root keys/image-root.json --out statement.md
    """
    disk = PosixDisk(folder_mode=0o755)
    # A fresh memory: this machine believes the root it was given and nothing that it saw before.
    with tempfile.TemporaryDirectory(prefix="drupelet-verify-") as scratch, Bar() as bar:
        now, accepted = datetime.now(UTC), accept_unknown or ()
        if not depot:
            found: Evidence = _package(release, disk)
            answer = verify(found, now=now, accepted=accepted, progress=bar.bytes_done)
        else:
            place = _place(depot, root, disk, Path(scratch))
            wanted = ReleaseId.parse(release)
            found = InDepot(wanted, images=place.images, blobs=place.blobs, fetch=place.fetch, where=place.where)
            if wanted.family == RUNTIME_FAMILY:
                answer = verify_runtime(
                    wanted,
                    images=place.images,
                    where=place.where,
                    image=_image(image),
                    now=now,
                    accepted=accepted,
                    progress=bar.bytes_done,
                )
            else:
                answer = verify(found, now=now, accepted=accepted, progress=bar.bytes_done)
        if evidence is not None and answer.verdict is not Verdict.FAIL and not release.startswith(f"{RUNTIME_FAMILY}/"):
            _save(found, evidence.absolute(), disk)
    if out is not None:
        disk.replace(out.absolute(), as_markdown(answer).encode(), mode=0o644)
    _print(answer, output)
    if answer.verdict is not Verdict.PASS:
        bad = [check.name for check in answer.checks if check.verdict is not Verdict.PASS]
        raise Untrusted(
            f"{answer.release} is not verified: {', '.join(name for name in bad if name not in answer.accepted)}",
            where=answer.source,
            fix="read the evidence above",
        )
    say(f"{answer.release} is verified.")


@dataclass(frozen=True, slots=True)
class _Place:
    """A depot to read like a device."""

    where: str
    images: Images
    fetch: Fetch
    blobs: Source


def _package(release: str, disk: PosixDisk) -> InPackage:
    folder = Path(release)
    if not folder.is_dir():
        raise BadInput(f"{release!r} is no folder of a package", fix="give --depot and --root for a release")
    return InPackage(folder.absolute(), disk=disk)


def _place(depot: str, root: Path | None, disk: PosixDisk, scratch: Path) -> _Place:
    if root is None:
        raise BadInput("what is to be believed?", fix="give --root, the image-root.json that your devices trust")
    trusted = disk.read(root.absolute(), bytes_max=ROOT_BYTES_MAX)
    parse_root(trusted, where=str(root))
    fetch: Fetch
    blobs: Source
    if depot.startswith(("http://", "https://")):
        where = checked_url(depot)
        fetch, blobs = HttpFetch(), HttpSource(where)
    else:
        store = depot_at(depot)
        where, fetch, blobs = store.where, StoreFetch(store), store
    images = Images(PosixDisk(), scratch, root=trusted, depot_url=where, fetch=fetch, now=lambda: datetime.now(UTC))
    return _Place(where, images, fetch, blobs)


def _image(text: str) -> ImageSource | None:
    if not text:
        return None
    if is_registry(text):
        return PushedImage(registry_at(repository_at(text)))
    if not Path(text).is_dir():
        raise NotFound("there is no such folder", where=text, fix="give drupelet forge image's folder, or oci://...")
    return BuiltImage(Path(text).absolute())


def _save(found: Evidence, folder: Path, disk: PosixDisk) -> None:
    """Save what other tools verify for themselves: what was signed beside the manifest, and its attachments."""
    manifest, _ = found.manifest()
    for one in manifest.attachments:
        data = found.small(Digest.parse(one.digest), size=one.size_bytes, bytes_max=ATTACHMENT_BYTES_MAX)
        disk.replace(folder / ATTACHMENT_FILES[one.kind], data, mode=0o644)
    for name in (ENVELOPE_NAME, SIGNATURE_NAME, PUBLIC_KEY_NAME):
        signed = found.beside(name, bytes_max=ENVELOPE_BYTES_MAX)
        if signed is not None:
            disk.replace(folder / name, signed, mode=0o644)


def _print(answer: Answer, output: Format) -> None:
    rows = [(check.name, check.verdict.value, check.evidence) for check in answer.checks]
    show(answer, output=output, columns=("check", "result", "evidence"), rows=rows)

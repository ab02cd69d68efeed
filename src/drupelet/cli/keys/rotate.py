"""`drupelet keys rotate`: change who signs what, and make the repositories follow."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.keys.show import Folder
from drupelet.cli.output import Format, Output, print_json, say
from drupelet.cli.passphrase import PassphraseFile, open_ring
from drupelet.core.errors import BadInput
from drupelet.durable import PosixDisk
from drupelet.trust.keys import MODEL_SCHEME, ROOT_LIFETIME, KeyRing
from drupelet.trust.publisher import ImageRepository
from drupelet.trust.ring import (
    Repository,
    parse_role,
    with_family,
    with_key,
    with_threshold,
    without_family,
    without_key,
)
from drupelet.trust.sittings import rotate_director

Words = list[str] | None


def rotate(
    folder: Folder,
    depot: Annotated[Path | None, typer.Option("--depot", help="The depot whose repository is to follow.")] = None,
    add: Annotated[
        Words, typer.Option("--add", help="ROLE makes a key for it; ROLE=PLACE takes one, such as kiosk=awskms:ID.")
    ] = None,
    revoke: Annotated[Words, typer.Option("--revoke", help="Name of a key that is to sign nothing any more.")] = None,
    threshold: Annotated[Words, typer.Option("--threshold", help="ROLE=N: how many must sign.")] = None,
    add_family: Annotated[Words, typer.Option("--add-family", help="A new family, with a key of its own.")] = None,
    drop_family: Annotated[Words, typer.Option("--drop-family", help="A family that is to be no more.")] = None,
    renew_roots: Annotated[
        bool, typer.Option("--renew-roots", help="Sign both roots anew, before they expire (5 years) or after.")
    ] = False,
    scheme: Annotated[str, typer.Option("--scheme", help="Kind of the keys that --add makes.")] = "ed25519",
    passphrase_file: PassphraseFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Add and revoke keys and families, and sign what follows from it: a new root, delegations, releases anew.

    Say it once; run it again without changes until enough people have signed (`drupelet keys sign`). Roles are root,
    targets, snapshot, timestamp, a family, director/root and so on, model/FAMILY.

    Example: drupelet keys rotate keys --depot depot --add kiosk --revoke image-family-kiosk
    """
    ring = open_ring(folder, passphrase_file)
    for family in add_family or ():
        ring.change(with_key(with_family(ring.info, family), ring.make("image", family, name=f"image-family-{family}")))
        ring.change(with_key(ring.info, ring.make("model", family, scheme=MODEL_SCHEME)))
    for wish in add or ():
        _add(ring, wish, scheme)
    for wish in threshold or ():
        role, _, number = wish.rpartition("=")
        if not number.isdecimal():
            raise BadInput(f"--threshold {wish!r} is not ROLE=N", fix="for example --threshold kiosk=2")
        ring.change(with_threshold(ring.info, parse_role(ring.info, role), int(number)))
    for name in revoke or ():
        ring.change(without_key(ring.info, name))
    for family in drop_family or ():
        ring.change(without_family(ring.info, family))
    _follow(ring, depot, output, renew_roots=renew_roots)


def _add(ring: KeyRing, wish: str, scheme: str) -> None:
    text, _, place = wish.partition("=")
    repository, _, role = parse_role(ring.info, text).partition("/")
    kind: Repository = "image" if repository == "image" else "director" if repository == "director" else "model"
    if place:
        ring.change(with_key(ring.info, ring.take(kind, role, place=place)))
    else:
        ring.change(with_key(ring.info, ring.make(kind, role, scheme=MODEL_SCHEME if kind == "model" else scheme)))


def _follow(ring: KeyRing, depot: Path | None, output: Format, *, renew_roots: bool) -> None:
    """Make both repositories follow the ring, and say what was signed anew."""
    now = datetime.now(UTC)
    director = rotate_director(PosixDisk(), ring, now=now, lifetime=ROOT_LIFETIME, renew=renew_roots)
    if director is not None:
        say(f"director-root.json is version {director} now.")
        say(f"Give the fleet server all director-root*.json of {ring.folder}.")
    images: tuple[str, ...] = ()
    if depot is not None:
        repository = ImageRepository(PosixDisk(folder_mode=0o755), depot.absolute(), ring, lambda: datetime.now(UTC))
        images = repository.rotate(renew_root=renew_roots)
        said = f"signed anew: {', '.join(images)}" if images else "nothing to do: it says what the key ring says"
        say(f"{depot}: {said}.")
    if output is Format.JSON:
        print_json({"director_root": director, "image": images})

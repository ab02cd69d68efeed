"""Walking people through a ceremony. What was done is journalled in the ring's folder; a run goes on where one stopped.

    OUT/ceremony.json           the journal: steps done, keys made (public halves); gone when all is done
    OUT/pending/*.json          the roots while they are being signed, the record while it is
    OUT/keyring.json ...        the key ring, written when the roots are complete
    OUT/ceremony/record.json    what happened, record.dsse.json the same signed, record.md to print

People, media and the clock are ports: a test scripts them, `--rehearse` gives them folders that are thrown away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Protocol

from msgspec import Meta
from msgspec.structs import replace
from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root

from drupelet.core.errors import BadInput, Conflict, NotFound, Refused
from drupelet.core.names import Digest
from drupelet.durable import Disk
from drupelet.trust.ceremony.plan import Plan, PlannedKey
from drupelet.trust.ceremony.record import (
    Done,
    Record,
    RootMade,
    as_markdown,
    envelope_bytes,
    fingerprint,
    payload,
    read_envelope,
    unsigned,
)
from drupelet.trust.ceremony.steps import Act, Step, steps_of
from drupelet.trust.errors import AlreadyThere
from drupelet.trust.keys import MODEL_SCHEME, REPOSITORIES, RING_FILE, make_key, strong
from drupelet.trust.pending import Authority, read_pending
from drupelet.trust.ring import FILE, KeyInfo
from drupelet.trust.roles import AnyMetadata, add_signature
from drupelet.trust.roots import root_of
from drupelet.trust.signers import Around, kind_of
from drupelet.trust.signers.file import path_of, read_signer, sealed
from drupelet.wire.codec import Message, decode, encode_canonical
from drupelet.wire.fields import DigestText

JOURNAL = "ceremony.json"
_TRIAL = b"drupelet ceremony: does this key sign?"


class Stopped(Refused):
    """Somebody said no. What was done is kept; the same command goes on from here."""


class People(Protocol):
    """Those who are present, as far as a program can ask them."""

    def say(self, text: str) -> None:
        """Tell them something."""
        ...

    def confirm(self, question: str) -> bool:
        """Ask for a yes or a no."""
        ...

    def passphrase(self, holder: str, *, new: bool) -> str:
        """Ask a holder for the passphrase of his key files; twice where it is new."""
        ...

    def pin(self, token: str) -> str:
        """Ask for a token's PIN."""
        ...


class Journal(Message, frozen=True, kw_only=True):
    """`ceremony.json`: how far a ceremony has come."""

    FORMAT: ClassVar[str] = "drupelet.ceremony-journal/1"
    BYTES_MAX: ClassVar[int] = 1 << 20

    format: str = "drupelet.ceremony-journal/1"
    plan: DigestText
    done: Annotated[tuple[Done, ...], Meta(max_length=1000)] = ()
    keys: Annotated[tuple[KeyInfo, ...], Meta(max_length=128)] = ()


@dataclass(slots=True, kw_only=True)
class Ceremony:
    """One ceremony into the folder `out`."""

    plan: Plan
    plan_digest: Digest
    disk: Disk
    out: Path
    people: People
    now: Callable[[], datetime]
    networks: Callable[[], tuple[str, ...]]
    """Names of network interfaces that are up: a hint, not a proof."""
    tools: Mapping[str, str]
    environment: Mapping[str, str]
    rehearsal: bool = False
    _passphrases: dict[str, str] = field(default_factory=dict)
    _in_hand: str = ""
    """The medium or token of the step before."""

    def run(self) -> Record:
        """Take every step that was not taken yet, and return the record.

        Raises `Stopped` when somebody says no, `Conflict` if another plan was begun here, and what disks and signers
        raise. Nothing of it undoes a step.
        """
        journal = self._journal()
        taken = {done.step for done in journal.done}
        for step in steps_of(self.plan):
            if step.name in taken:
                continue
            self.people.say(f"\n== {step.name}")
            says, keys = self._take(step, journal)
            done = Done(step=step.name, at_ms=int(self.now().timestamp() * 1000), says=says)
            journal = replace(journal, done=(*journal.done, done), keys=(*journal.keys, *keys))
            self.disk.replace(self.out / JOURNAL, encode_canonical(journal), mode=0o644)
        record = decode(Record, self.disk.read(self.out / "ceremony" / "record.json", bytes_max=Record.BYTES_MAX))
        for name in ("image-root", "director-root", "record"):
            self.disk.remove(self._pending(name))
        self.disk.remove(self.out / JOURNAL)
        return record

    def _journal(self) -> Journal:
        path = self.out / JOURNAL
        try:
            journal = decode(Journal, self.disk.read(path, bytes_max=Journal.BYTES_MAX), where=str(path))
        except NotFound:
            if self.disk.exists(self.out / RING_FILE):
                raise AlreadyThere("a key ring lies here", where=str(self.out), fix="give a new folder") from None
            return Journal(plan=self.plan_digest.text)
        if journal.plan != self.plan_digest.text:
            raise Conflict(
                "a ceremony by another plan was begun here",
                where=str(path),
                fix="go on with that plan, or begin in a new folder",
            )
        self.people.say(f"Going on: {len(journal.done)} of {len(steps_of(self.plan))} steps are done.")
        return journal

    def _take(self, step: Step, journal: Journal) -> tuple[str, tuple[KeyInfo, ...]]:
        """Take a step; return what came of it and the keys it made."""
        if step.act is Act.KEY:
            key = self._key(self._planned(step.subject))
            return f"{key.scheme}, {fingerprint(key.keyid)}", (key,)
        acts: dict[Act, Callable[[str, Journal], str]] = {
            Act.PRESENT: self._present,
            Act.MACHINE: self._machine,
            Act.SIGN_ROOT: self._sign_root,
            Act.ROOTS: self._roots,
            Act.SIGN_RECORD: self._sign_record,
            Act.CARRY: self._carry,
        }
        return acts[step.act](step.subject, journal), ()

    def _present(self, name: str, _journal: Journal) -> str:
        person = next(person for person in self.plan.people if person.name == name)
        self._agree(f"Is {name} here{f' ({person.does})' if person.does else ''}, with proof of who that is?")
        return person.does

    def _machine(self, _subject: str, _journal: Journal) -> str:
        up = self.networks()
        if not up:
            return "no network interface is up"
        said = f"networks are up: {', '.join(up)}"
        self.people.say(f"This machine is not offline: {said}. Unplug them, or say why not in the minutes.")
        self._agree("Go on nevertheless?")
        return said

    def _key(self, planned: PlannedKey) -> KeyInfo:
        """Make a key on its medium, or take it from its token; try it; have its fingerprint read aloud."""
        self._insert(planned)
        key = self._made(planned) if planned.place == FILE else self._taken(planned)
        signature = self._signer(key, planned).sign(_TRIAL)
        key.key.verify_signature(signature, _TRIAL)
        self.people.say(f"{key.name}, {key.scheme}, held by {planned.holder}. Read aloud: {fingerprint(key.keyid)}")
        self._agree("Has everybody who writes it down read it back?")
        return key

    def _made(self, planned: PlannedKey) -> KeyInfo:
        path = path_of(planned.name, self._around(planned))
        scheme = planned.scheme or (MODEL_SCHEME if planned.repository == "model" else "ed25519")
        if self.disk.exists(path):
            # Of a run that was interrupted after it was made, or of somebody's earlier day.
            self._agree(f"A key lies at {path} already. Take that one?")
            public = read_signer(path, passphrase=self._passphrase(planned.holder, new=False)).public_key
            return _info(planned, public.keyid, public.keytype or "", public.scheme or "", str(public.keyval["public"]))
        made = make_key(planned.name, planned.repository, planned.roles, scheme)
        secret = strong(self._passphrase(planned.holder, new=True))
        self.disk.replace(path, sealed(made.private, secret), mode=0o600)
        return made.info

    def _taken(self, planned: PlannedKey) -> KeyInfo:
        public = kind_of(planned.place).public(planned.place, self._around(planned))
        return _info(planned, public.keyid, public.keytype, public.scheme, str(public.keyval["public"]))

    def _sign_root(self, name: str, journal: Journal) -> str:
        planned = self._planned(name)
        repository: Literal["image", "director"] = "image" if planned.repository == "image" else "director"
        metadata = self._root(repository, journal)
        self._insert(planned)
        key = next(key for key in journal.keys if key.name == name)
        add_signature(metadata, self._signer(key, planned))
        key.key.verify_signature(metadata.signatures[key.keyid], metadata.signed_bytes)
        self.disk.replace(self._pending(f"{repository}-root"), metadata.to_bytes(), mode=0o644)
        return f"{repository} root, verified"

    def _root(self, repository: Literal["image", "director"], journal: Journal) -> AnyMetadata:
        """Return the root as far as it is signed; made when the first key signs it."""
        try:
            return read_pending(self.disk, self._pending(f"{repository}-root"))
        except NotFound:
            now = self.now()
            expires = now + timedelta(days=365 * self.plan.root_years)
            ring = self.plan.ring(journal.keys)
            made: AnyMetadata = Metadata(root_of(ring, repository, version=1, now=now, expires=expires))
            return made

    def _roots(self, _subject: str, journal: Journal) -> str:
        """Check both roots, write the ring, and have the digests read aloud."""
        ring = self.plan.ring(journal.keys)
        said = []
        for repository in REPOSITORIES:
            metadata = self._root(repository, journal)
            missing, _ = Authority(metadata.signed, "root").lacks(metadata)
            if missing:
                raise BadInput(f"the {repository} root lacks {missing} signatures", where=str(self.out))
            data = metadata.to_bytes()
            digest = hashlib.sha256(data).hexdigest()
            self.disk.replace(self.out / f"{repository}-root.json", data, mode=0o644)
            self.people.say(f"{repository}-root.json is sha256:{digest}")
            said.append(f"{repository} sha256:{digest}")
        self._agree("Has everybody who writes them down read them back?")
        self.disk.replace(self.out / RING_FILE, encode_canonical(ring), mode=0o644)
        return ", ".join(said)

    def _sign_record(self, name: str, journal: Journal) -> str:
        path = self._pending("record")
        try:
            envelope = read_envelope(self.disk.read(path, bytes_max=2 * Record.BYTES_MAX), where=str(path))
        except NotFound:
            envelope = unsigned(payload(self._record(journal)))
        planned = self._planned(name)
        self._insert(planned)
        key = next(key for key in journal.keys if key.name == name)
        signature = self._signer(key, planned).sign(envelope.pae())
        envelope.signatures[signature.keyid] = signature
        folder = self.out / "ceremony"
        self.disk.replace(folder / "record.json", envelope.payload, mode=0o644)
        self.disk.replace(folder / "record.md", as_markdown(decode(Record, envelope.payload)).encode(), mode=0o644)
        self.disk.replace(folder / "record.dsse.json", envelope_bytes(envelope), mode=0o644)
        self.disk.replace(path, envelope_bytes(envelope), mode=0o644)
        return "record signed"

    def _record(self, journal: Journal) -> Record:
        roots = []
        for repository in REPOSITORIES:
            data = self.disk.read(self.out / f"{repository}-root.json", bytes_max=1 << 20)
            metadata = Metadata[Root].from_bytes(data)
            signers = [key.name for key in journal.keys if key.keyid in metadata.signatures]
            roots.append(
                RootMade(
                    repository=repository,
                    version=metadata.signed.version,
                    sha256=Digest.of_hex(hashlib.sha256(data).hexdigest()).text,
                    expires=f"{metadata.signed.expires:%Y-%m-%d}",
                    signed_by=tuple(signers),
                )
            )
        return Record(
            title=self.plan.title,
            rehearsal=self.rehearsal,
            plan=self.plan_digest.text,
            people=self.plan.people,
            keys=journal.keys,
            holders={key.name: key.holder for key in self.plan.keys},
            thresholds=dict(self.plan.thresholds),
            roots=tuple(roots),
            steps=journal.done,
            tools=dict(self.tools),
        )

    def _carry(self, medium: str, _journal: Journal) -> str:
        """Copy everything public to a medium: what lies on it is a key ring then, with its holder's keys."""
        holders = sorted({key.holder for key in self.plan.keys if key.medium == medium})
        if medium != self._in_hand:
            self._agree(f"Is the medium of {' and '.join(holders)} plugged in at {medium}?")
        self._in_hand = ""
        for name in (RING_FILE, "image-root.json", "director-root.json"):
            data = self.disk.read(self.out / name, bytes_max=1 << 20)
            self.disk.replace(Path(medium) / name, data, mode=0o644)
        self.people.say(f"{' and '.join(holders)}: take {medium} away, to a place of its own.")
        return f"carried away by {' and '.join(holders)}"

    def _planned(self, name: str) -> PlannedKey:
        return next(key for key in self.plan.keys if key.name == name)

    def _insert(self, planned: PlannedKey) -> None:
        """Ask for the medium or the token, unless the key stays with the ring or it is the one from the step before."""
        wanted = planned.medium or (planned.place if planned.place != FILE else "")
        if wanted and wanted != self._in_hand:
            what = f"medium of {planned.holder} at {planned.medium}" if planned.medium else f"token of {planned.holder}"
            self._agree(f"Is the {what} plugged in, and nobody else's?")
        self._in_hand = wanted

    def _signer(self, key: KeyInfo, planned: PlannedKey) -> Signer:
        return kind_of(planned.place).open(replace(key, place=planned.place), self._around(planned))

    def _around(self, planned: PlannedKey) -> Around:
        folder = (Path(planned.medium) if planned.medium else self.out) / "private"
        return Around(
            folder,
            lambda: self._passphrase(planned.holder, new=False),
            self.people.pin,
            self.environment,
        )

    def _passphrase(self, holder: str, *, new: bool) -> str:
        if holder not in self._passphrases:
            self._passphrases[holder] = self.people.passphrase(holder, new=new)
        return self._passphrases[holder]

    def _pending(self, name: str) -> Path:
        return self.out / "pending" / f"{name}.json"

    def _agree(self, question: str) -> None:
        if not self.people.confirm(question):
            raise Stopped(f"stopped at: {question}", where=str(self.out), fix="run the same command to go on from here")


def _info(planned: PlannedKey, keyid: str, keytype: str, scheme: str, public: str) -> KeyInfo:
    return KeyInfo(
        name=planned.name,
        repository=planned.repository,
        roles=planned.roles,
        keyid=keyid,
        keytype=keytype,
        scheme=scheme,
        public=public,
        place=planned.place,
    )

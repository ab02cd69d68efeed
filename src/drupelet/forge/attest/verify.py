"""Verifying a release for somebody who must answer for it: every claim of it, each against the bytes it is about.

Each check is a function of the evidence that returns one `Check`; what it cannot find it calls unknown, and whatever an
untrusted file does to it is a failure with its reason. Nothing here decides what is acceptable: `answer.overall` does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from drupelet.core.errors import Untrusted
from drupelet.core.names import Digest
from drupelet.forge.attest import bom as bills
from drupelet.forge.attest import statement as statements
from drupelet.forge.attest.answer import Answer, Fact, Found, Verdict, answered, require_known
from drupelet.forge.attest.beside import ENVELOPE_NAME, PUBLIC_KEY_NAME, SIGNATURE_NAME
from drupelet.forge.attest.dsse import ENVELOPE_BYTES_MAX, unseal
from drupelet.forge.attest.sources import Evidence, Progress, Signed
from drupelet.forge.report import Report
from drupelet.trust.clock import written
from drupelet.trust.images import RoleSigned
from drupelet.wire.codec import decode
from drupelet.wire.manifest import Attachment, AttachmentKind, ReleaseManifest

PUBLIC_KEY_BYTES_MAX = 16 * 1024
SIGNATURE_BYTES_MAX = 1 << 20
ATTACHMENT_BYTES_MAX = 16 << 20
CHECKS = ("signature", "evaluation", "variants", "report", "attachments", "provenance", "bom", "model-signature")


@dataclass(frozen=True, slots=True)
class Release:
    """What all checks look at."""

    evidence: Evidence
    manifest: ReleaseManifest
    signed: Signed | None
    now: datetime
    progress: Progress

    @property
    def variants(self) -> dict[str, str]:
        """The variants' file names and SHA-256 (hex), as the manifest has them."""
        return {statements.file_of(one): Digest.parse(one.digest).hex for one in self.manifest.variants}

    def attached(self, kind: AttachmentKind) -> bytes | None:
        """Return an attachment if there is one. Raises `Untrusted` if it is not the one that the manifest names."""
        attachment = self.manifest.attachment(kind)
        return self.named(attachment) if attachment is not None else None

    def named(self, one: Attachment) -> bytes:
        """Return an attachment's bytes. Raises `Untrusted` if they are others."""
        digest = Digest.parse(one.digest)
        data = self.evidence.small(digest, size=one.size_bytes, bytes_max=ATTACHMENT_BYTES_MAX)
        found = hashlib.sha256(data).hexdigest()
        if found != digest.hex:
            raise Untrusted(f"{one.kind} is sha256:{found} where the manifest names {digest}")
        return data


def verify(
    evidence: Evidence,
    *,
    now: datetime,
    accepted: Collection[str] = (),
    progress: Progress = lambda _doing, _done, _total: None,
) -> Answer:
    """Return what holds of the release in `evidence`.

    Raises what reading its manifest raises (`NotTrusted`, `NotFound`, `Unavailable`): then there is no release to speak
    of. Everything after that is an answer.
    """
    require_known(accepted, CHECKS)
    manifest, signed = evidence.manifest()
    release = Release(evidence, manifest, signed, now, progress)
    checks = {name: partial(check, release) for name, check in zip(CHECKS, _CHECKS, strict=True)}
    return answered(
        checks,
        _facts(release),
        release=manifest.release.path,
        source=evidence.where,
        now=now,
        accepted=accepted,
    )


def _signature(release: Release) -> Found:
    if release.signed is None:
        return Verdict.UNKNOWN, "this is a package: nobody has signed it yet"
    return signature_found(release.signed, release.now)


def signature_found(signed: Signed, now: datetime) -> Found:
    """Return who vouches for a target, and how fresh that is."""
    roles = {role.name: role for role in signed.roles}
    said = [f"{one.name} {one.version}: {len(one.keyids)} signed, {one.threshold} needed" for one in roles.values()]
    timestamp = roles["timestamp"]
    age = f", {(now - timestamp.signed_at).days} days old" if timestamp.signed_at is not None else ""
    fresh = f"newest of the repository, good until {written(timestamp.expires)}{age}"
    return Verdict.PASS, f"{signed.target.sha256} is vouched for ({'; '.join(said)}); {fresh}"


def _evaluation(release: Release) -> Found:
    judged = release.manifest.evaluation
    if judged.passed:
        return Verdict.PASS, "the evaluation passed"
    if judged.overridden.strip():
        findings = "; ".join(judged.findings)
        return Verdict.UNKNOWN, f"the evaluation refused it and somebody overrode: {judged.overridden} ({findings})"
    return Verdict.FAIL, f"the evaluation refused it: {'; '.join(judged.findings) or 'without a reason'}"


def _variants(release: Release) -> Found:
    for variant in release.manifest.variants:
        digest = Digest.parse(variant.digest)
        found, size = release.evidence.hashed(digest, size=variant.size_bytes, progress=release.progress)
        if found != digest or size != variant.size_bytes:
            return Verdict.FAIL, f"{variant.name} is {found}, {size} bytes, where {digest} was signed"
    count = len(release.manifest.variants)
    return Verdict.PASS, f"{count} files hashed, each the one that the manifest names"


def _report(release: Release) -> Found:
    named = release.manifest.evaluation.report
    if named is None:
        return Verdict.UNKNOWN, "the manifest names no report"
    digest = Digest.parse(named)
    data = release.evidence.small(digest, size=None, bytes_max=Report.BYTES_MAX)
    if hashlib.sha256(data).hexdigest() != digest.hex:
        return Verdict.FAIL, f"the report is not the {digest} that the manifest names"
    report = decode(Report, data, where="report.json")
    if report.passed is not release.manifest.evaluation.passed:
        return Verdict.FAIL, "the report's verdict is not the manifest's"
    measured = {one.digest for one in report.variants}
    strangers = [one.name for one in release.manifest.variants if one.digest not in measured]
    if strangers:
        return Verdict.FAIL, f"the report did not measure {', '.join(strangers)}"
    return Verdict.PASS, f"{digest} measured these very files, against {report.reference}"


def _attachments(release: Release) -> Found:
    attached = release.manifest.attachments
    for one in attached:
        release.named(one)
    if not attached:
        return Verdict.PASS, "there are none"
    return Verdict.PASS, f"each the one that the manifest names: {', '.join(one.kind for one in attached)}"


def _provenance(release: Release) -> Found:
    attached = release.attached("provenance")
    if attached is None:
        return Verdict.UNKNOWN, "the release says nothing of how it was made"
    statement = statements.read_statement(attached)
    wrong = _contradiction(release, statement)
    if wrong:
        return Verdict.FAIL, wrong
    steps = f"{statements.step_count(statement)} steps, subjects and inputs are the manifest's"
    if release.signed is None:
        return Verdict.UNKNOWN, f"not signed yet; {steps}"
    envelope = release.evidence.beside(ENVELOPE_NAME, bytes_max=ENVELOPE_BYTES_MAX)
    if envelope is None:
        return Verdict.UNKNOWN, f"nobody signed an envelope; {steps}"
    sealed, signers = unseal(envelope, release.signed.family_keys, where=ENVELOPE_NAME)
    if sealed != attached:
        return Verdict.FAIL, "the signed statement is not the one attached to the manifest"
    return Verdict.PASS, f"signed by {', '.join(signers)}; {steps}"


def _contradiction(release: Release, statement: statements.Tree) -> str:
    """Return what in the statement is not this release's, empty if nothing is."""
    if statements.release_in(statement) != release.manifest.release.path:
        return f"the statement is about {statements.release_in(statement)[:100] or 'no release'}"
    if statements.subjects(statement) != release.variants:
        return "the statement's subjects are not the manifest's variants"
    sources = statements.dependencies(statement)
    for name, digest in (
        ("checkpoint", release.manifest.provenance.checkpoint),
        ("recipe", release.manifest.provenance.recipe),
    ):
        if sources.get(name) != Digest.parse(digest).hex:
            return f"the statement names another {name} than the manifest"
    return ""


def _bom(release: Release) -> Found:
    attached = release.attached("bom")
    if attached is None:
        return Verdict.UNKNOWN, "the release has no bill of materials"
    document = bills.validate(attached)
    if bills.release_in(document) != release.manifest.release.path:
        return Verdict.FAIL, f"it is about {bills.release_in(document)[:100] or 'no release'}"
    if bills.variant_digests(document) != release.variants:
        return Verdict.FAIL, "its hashes are not the manifest's"
    return (
        Verdict.PASS,
        f"valid CycloneDX {bills.SPEC_VERSION}, {len(document.get('components', ()))} components, hashes equal",
    )


def _model_signature(release: Release) -> Found:
    if release.signed is None:
        return Verdict.UNKNOWN, "not signed yet"
    signature = release.evidence.beside(SIGNATURE_NAME, bytes_max=SIGNATURE_BYTES_MAX)
    public = release.evidence.beside(PUBLIC_KEY_NAME, bytes_max=PUBLIC_KEY_BYTES_MAX)
    if signature is None or public is None:
        return Verdict.UNKNOWN, "there is no OpenSSF model signature"
    from drupelet.forge.attest.openssf import signed_files

    if signed_files(signature, public=public) != release.variants:
        return Verdict.FAIL, "it vouches for other files than the manifest"
    return Verdict.PASS, f"holds for every variant, by the key sha256:{hashlib.sha256(public).hexdigest()}"


_CHECKS = (
    _signature,
    _evaluation,
    _variants,
    _report,
    _attachments,
    _provenance,
    _bom,
    _model_signature,
)


def _facts(release: Release) -> list[Fact]:
    manifest = release.manifest
    facts = [
        Fact(what="created", value=written(datetime.fromtimestamp(manifest.created_at_ms / 1000, release.now.tzinfo))),
        Fact(what="checkpoint", value=manifest.provenance.checkpoint),
        Fact(what="recipe", value=manifest.provenance.recipe),
        Fact(what="converter", value=manifest.provenance.converter),
        *(Fact(what=f"variant {one.name}", value=one.digest) for one in manifest.variants),
        *(Fact(what=f"attachment {one.kind}", value=one.digest) for one in manifest.attachments),
    ]
    if release.signed is not None:
        facts.append(Fact(what="manifest", value=release.signed.target.sha256.text))
        facts += [fact for role in release.signed.roles for fact in facts_of_role(role)]
    return facts


def facts_of_role(role: RoleSigned) -> list[Fact]:
    """Return a role's file, times and signers as facts."""
    signed = written(role.signed_at) if role.signed_at is not None else "unknown"
    return [
        Fact(what=f"{role.name} {role.version}", value=role.sha256.text),
        Fact(what=f"{role.name} signed, expires", value=f"{signed}, {written(role.expires)}"),
        *(Fact(what=f"{role.name} signed by key", value=keyid) for keyid in role.keyids),
    ]

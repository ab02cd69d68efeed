"""Writing the image repository: into a depot folder that any web server may serve.

    metadata/1.root.json  timestamp.json  4.snapshot.json  1.targets.json  3.kiosk.json
    targets/kiosk/1.2/<sha256>.manifest.json

A file of a release is written first, then the metadata that name it (see `books.py`). Where a role needs signatures of
keys that are not here, nothing is published and what was signed is kept (see `pending.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import ReleaseId
from drupelet.durable import Disk
from drupelet.trust.books import CLOCK_STEP_MAX, PUBLIC, Books, Lifetimes, State
from drupelet.trust.clock import whole_second
from drupelet.trust.errors import AlreadyThere, SignaturesMissing
from drupelet.trust.keys import KeyRing
from drupelet.trust.pending import Authority, Pending
from drupelet.trust.roles import TargetInfo, make_targets, our_field
from drupelet.trust.roots import delegations_of, root_of, same_delegations, same_trust
from drupelet.wire.codec import encode_canonical
from drupelet.wire.manifest import MANIFEST_NAME, ReleaseManifest, release_of_path, release_of_target

__all__ = ["CLOCK_STEP_MAX", "ImageRepository", "Lifetimes"]

Files = Mapping[str, bytes]


class ImageRepository:
    """The image repository in `depot_folder`, written with the keys of `keys`. One process at a time; it locks."""

    def __init__(
        self,
        disk: Disk,
        depot_folder: Path,
        keys: KeyRing,
        now: Callable[[], datetime],
        *,
        lifetimes: Lifetimes | None = None,
    ) -> None:
        self._disk = disk
        self._folder = depot_folder
        self._keys = keys
        self._books = Books(disk, depot_folder, keys, now, lifetimes=lifetimes or Lifetimes())

    def create(self) -> None:
        """Write an empty repository. Raises `AlreadyThere` if there is one, `SignaturesMissing` as `add_targets`."""
        with self._books.lock():
            if self._books.exists():
                raise AlreadyThere(
                    "this depot has an image repository", where=str(self._folder), fix="add releases to it"
                )
            root = Metadata[Root].from_bytes(self._keys.image_root).signed
            pending = self._books.pending()
            targets = self._role(version=1)
            targets.delegations = delegations_of(self._keys.info)
            files = {"targets": self._collect(pending, "targets", targets, root)}
            for family in self._keys.families:
                files[family] = self._collect(pending, family, self._role(version=1), targets)
            pending.require()
            self._books.publish(files, root=root, state=None, before=self._write_roots)
            pending.finish()

    def _write_roots(self) -> None:
        for version, data in self._keys.image_roots.items():
            self._books.write(f"{version}.root.json", data)

    def add_release(
        self,
        manifest: ReleaseManifest,
        *,
        beside: Callable[[], Files] = dict,
        ready: Callable[[], None] = lambda: None,
    ) -> TargetInfo:
        """Sign and publish a manifest; its blobs must be in the depot already. Doing it twice does nothing.

        `beside` makes further small files of this release, by target path, that are signed in the same step; it is not
        called when the manifest is signed already, or waits for more signatures with the files that it came with.
        `ready` is called under the lock under which alone blobs are collected, and raises if one of them is gone.

        Raises `AlreadyThere` if another manifest was signed under this name: releases never change.
        """
        data = encode_canonical(manifest)
        if len(data) > ReleaseManifest.BYTES_MAX:
            raise BadInput(
                f"the manifest has {len(data)} bytes", fix=f"at most {ReleaseManifest.BYTES_MAX} are allowed"
            )
        return self.add_targets({manifest.path: data}, beside=beside, ready=ready)[0]

    def add_target(self, path: str, data: bytes) -> TargetInfo:
        """Sign and publish a small file as `<family>/<version>/<name>`; see `add_targets`."""
        return self.add_targets({path: data})[0]

    def add_targets(
        self, files: Files, *, beside: Callable[[], Files] = dict, ready: Callable[[], None] = lambda: None
    ) -> tuple[TargetInfo, ...]:
        """Sign and publish small files of one release, all in one step. Doing it twice does nothing.

        Paths are `<family>/<version>/<name>`. Raises `AlreadyThere` if one of them was signed with other contents:
        what is signed never changes. `SignaturesMissing` if the family asks for signatures of keys that are not here;
        then what was signed waits in the ring, and the same call, once they have signed, publishes it.
        """
        release = _release_of(files)
        targets = [TargetInfo.of(path, data) for path, data in files.items()]
        with self._books.lock():
            ready()
            state = self._load(release)
            role = self._books.family(state, release.family)
            for target in targets:
                _refuse_other(role, target, where=str(self._folder))
            if all(target.path in role.targets for target in targets):
                self._put(files)
                return tuple(targets)
            pending = self._books.pending()
            waiting = pending.waiting(release.family)
            if waiting is not None and isinstance(waiting.signed, Targets) and _holds(waiting.signed, targets):
                more = {**self._kept(pending, role, waiting.signed), **files}
                wanted = list(waiting.signed.targets.values())
            else:
                more = {**files, **beside()}
                _release_of(more)
                new = {path: TargetInfo.of(path, data).as_target() for path, data in more.items()}
                wanted = list({**role.targets, **new}.values())
            lying = {TargetInfo.of(path, data).url_path: data for path, data in more.items()}
            self._put(more)
            try:
                self._replace_family(release.family, state, role, wanted)
            except SignaturesMissing:
                pending.keep_files(lying)
                raise
            pending.drop_files(lying)
        return tuple(targets)

    def _kept(self, pending: Pending, role: Targets, waiting: Targets) -> dict[str, bytes]:
        """Return the files that a role that waits for signatures names for the first time."""
        found = {}
        for path in set(waiting.targets) - set(role.targets):
            info = TargetInfo.of_target(waiting.targets[path])
            data = pending.take_file(info.url_path) if info is not None else None
            if data is None:
                raise NotFound(
                    f"{path} waits for signatures and is gone",
                    where=str(self._keys.folder / "pending"),
                    fix=f"remove pending/{path.partition('/')[0]}.json there and begin anew",
                )
            found[path] = data
        return found

    def _put(self, files: Files) -> None:
        for path, data in files.items():
            name = TargetInfo.of(path, data).url_path
            self._disk.replace(self._folder / "targets" / name, data, mode=PUBLIC)

    def revoke(self, release: ReleaseId) -> None:
        """Take a release out of the repository, finally: no device will install it once it has seen this."""
        with self._books.lock():
            state = self._load(release)
            role = self._books.family(state, release.family)
            targets = [target for target in role.targets.values() if not target.path.startswith(f"{release.path}/")]
            if len(targets) == len(role.targets):
                raise NotFound(f"{release} is not in the image repository", where=str(self._folder))
            self._replace_family(release.family, state, role, targets)

    def target(self, path: str) -> TargetInfo | None:
        """Return what is signed under this path now, if anything is."""
        release = release_of_target(path)
        there = self._books.family(self._load(release), release.family).targets.get(path)
        return TargetInfo.of_target(there) if there is not None else None

    def refresh_timestamp(self) -> None:
        """Sign the timestamp anew, before it expires. Needs the timestamp key only."""
        with self._books.lock():
            self._books.restamp(self._books.load())

    def renew(self) -> None:
        """Sign every role but the root anew, before one of them expires. Needs all image keys but the root's."""
        with self._books.lock():
            state = self._books.load()
            pending = self._books.pending()
            now = self._books.time_to_sign(state.timestamp)
            files = {}
            for name in ("targets", *self._delegated(state)):
                role = state.targets if name == "targets" else self._books.family(state, name)
                role.version += 1
                role.expires = whole_second(now + self._books.lifetimes.targets)
                role.unrecognized_fields |= our_field(now=now)
                files[name] = self._collect(pending, name, role, state.root if name == "targets" else state.targets)
            pending.require()
            self._books.publish(files, root=state.root, state=state)
            pending.finish()

    def rotate(self, *, renew_root: bool = False) -> tuple[str, ...]:
        """Make the repository follow the ring: its root, its delegations, and what revoked keys had signed.

        `renew_root` signs the root anew even if it says what the ring says: before it expires, or after.

        Returns what was signed anew, in words; nothing if the repository says what the ring says. A new root needs a
        threshold of the old root's keys and of the new one's; raises `SignaturesMissing` until they have signed.
        """
        with self._books.lock():
            state = self._books.load(rotating=True)
            now = self._books.time_to_sign(state.timestamp)
            pending = self._books.pending()
            root, root_data = self._next_root(pending, state, now, renew=renew_root)
            targets = state.targets
            files: dict[str, bytes] = {}
            wanted = delegations_of(self._keys.info)
            if root_data or not same_delegations(targets.delegations, wanted):
                targets = self._role(version=targets.version + 1)
                targets.delegations = wanted
                files["targets"] = self._collect(pending, "targets", targets, root)
            for family in self._keys.families:
                renewed = self._next_family(state, targets, family)
                if renewed is not None:
                    files[family] = self._collect(pending, family, renewed, targets)
            if not files and not root_data:
                return ()
            pending.require()

            def publish_root() -> None:
                if root_data:
                    self._books.write(f"{root.version}.root.json", root_data)
                    self._keys.keep_root("image", root_data, version=root.version)

            self._books.publish(files, root=root, state=state, before=publish_root)
            pending.finish()
            return (*((f"root {root.version}",) if root_data else ()), *files)

    def _next_root(self, pending: Pending, state: State, now: datetime, *, renew: bool) -> tuple[Root, bytes]:
        """Return the root that the ring asks for and its file; the newest one and no bytes if it asks for that."""
        expires = state.root.expires
        new = root_of(self._keys.info, "image", version=state.root.version + 1, now=now, expires=expires)
        if same_trust(state.root, new) and not renew:
            return state.root, b""
        new.expires = whole_second(now + self._books.lifetimes.root)
        authorities = [Authority(state.root, "root"), Authority(new, "root")]
        return new, pending.collect("image-root", new, authorities)

    def _next_family(self, state: State, targets: Targets, family: str) -> Targets | None:
        """Return what a family must sign anew: an empty role if it is new, its role if other keys sign it now."""
        if f"{family}.json" not in state.snapshot.meta:
            return self._role(version=1)
        before = (state.targets.delegations and state.targets.delegations.roles) or {}
        if family not in before:
            version = state.snapshot.meta[f"{family}.json"].version
            return self._role(version=version + 1)
        role = self._books.family(state, family)
        now = targets.get_delegated_role(family)
        if set(before[family].keyids) <= set(now.keyids) and before[family].threshold >= now.threshold:
            return None
        return self._role(version=role.version + 1, targets=list(role.targets.values()))

    def releases(self) -> tuple[tuple[ReleaseId, TargetInfo], ...]:
        """Return the releases vouched for now, in order."""
        found = []
        state = self._books.load()
        for family in self._delegated(state):
            for target in self._books.family(state, family).targets.values():
                info = TargetInfo.of_target(target)
                if info is not None and info.path.endswith(f"/{MANIFEST_NAME}"):
                    found.append((release_of_path(info.path), info))
        return tuple(sorted(found))

    def targets(self, family: str) -> tuple[TargetInfo, ...]:
        """Return all that is signed for a family now, in order of paths; nothing if there is no such family."""
        state = self._books.load()
        if family not in self._delegated(state):
            return ()
        found = (TargetInfo.of_target(target) for target in self._books.family(state, family).targets.values())
        return tuple(sorted((info for info in found if info is not None), key=lambda info: info.path))

    def _delegated(self, state: State) -> tuple[str, ...]:
        delegations = state.targets.delegations
        return tuple(delegations.roles) if delegations is not None and delegations.roles is not None else ()

    def _load(self, release: ReleaseId) -> State:
        if release.family not in self._keys.families:
            there = ", ".join(self._keys.families)
            raise NotFound(f"these keys do not sign {release.family}", fix=f"they sign {there}")
        state = self._books.load()
        self._books.require_fresh(state)
        if release.family not in self._delegated(state):
            raise NotFound(
                f"this depot's image repository has no family {release.family}",
                where=str(self._folder),
                fix="make it follow the key ring: drupelet keys rotate",
            )
        return state

    def _role(self, *, version: int, targets: Sequence[TargetFile] = ()) -> Targets:
        now = self._books.now()
        return make_targets(version=version, now=now, expires=now + self._books.lifetimes.targets, targets=targets)

    def _collect(self, pending: Pending, name: str, role: Targets, by: Root | Targets) -> bytes:
        return self._books.bounded(name, role, pending.collect(name, role, [Authority(by, name)]))

    def _replace_family(self, family: str, state: State, role: Targets, targets: list[TargetFile]) -> None:
        self._books.time_to_sign(state.timestamp)
        pending = self._books.pending()
        renewed = self._role(version=role.version + 1, targets=targets)
        data = self._collect(pending, family, renewed, state.targets)
        pending.require()
        self._books.publish({family: data}, root=state.root, state=state)
        pending.finish()


def _release_of(files: Files) -> ReleaseId:
    """Return the release that all files belong to."""
    releases = {release_of_target(path) for path in files}
    if len(releases) != 1:
        raise BadInput("files of one release are signed together, and of no other", fix="sign each release alone")
    return releases.pop()


def _refuse_other(role: Targets, target: TargetInfo, *, where: str) -> None:
    there = role.targets.get(target.path)
    if there is not None and TargetInfo.of_target(there) != target:
        raise AlreadyThere(
            f"{_called(target.path)} was signed before with other contents", where=where, fix="give it a new version"
        )


def _holds(role: Targets, targets: list[TargetInfo]) -> bool:
    """Whether a role that waits for signatures names all these files."""
    return all(
        target.path in role.targets and TargetInfo.of_target(role.targets[target.path]) == target for target in targets
    )


def _called(path: str) -> str:
    """Return what a person calls a target: a release, or a file of one."""
    release = release_of_target(path)
    return str(release) if path.endswith(f"/{MANIFEST_NAME}") else f"{path.rpartition('/')[2]} of {release}"

"""llama.cpp's source: a named distribution of the package index, held to its digest before anything looks inside.

pip is the client, so that mirrors, proxies and offline folders work as its configuration says. It checks the digest
first (`--require-hashes`): a source distribution may run code as soon as its metadata is asked for. The archive is then
unpacked member by member, of which only llama.cpp's own folder is kept: counted, bounded, and never through a link
that leads out.
"""

from __future__ import annotations

import os
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from drupelet.core.errors import NotFound, Untrusted
from drupelet.durable import PosixDisk
from drupelet.durable.port import DiskFull, hash_file
from drupelet.forge.toolchain.process import run
from drupelet.forge.toolchain.venvs import Progress, ToolFailed

MEMBERS_MAX = 50_000
UNPACKED_BYTES_MAX = 2 << 30
"""Version 0.3.36 has 3,884 members of 216 MB."""


class SourceUntrusted(Untrusted):
    """Not the bytes that this version of Drupelet names, or an archive that tries to get out of its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source distribution: `project==version`, the SHA-256 of its archive, and the folder of it that is wanted."""

    project: str
    version: str
    sha256: str
    inside: str
    """Below the archive's one top folder, such as `vendor/llama.cpp`."""

    def folder(self, cache: Path) -> Path:
        """Return where its unpacked folder lies, or would."""
        return cache / "tools" / f"llama.cpp-source-{self.sha256[:16]}"

    def is_ready(self, cache: Path) -> bool:
        """Whether it is unpacked: it gets its name only when it is whole."""
        return self.folder(cache).is_dir()

    def fetch(self, cache: Path, *, archive: Path | None = None, progress: Progress = lambda _doing: None) -> Path:
        """Return the unpacked source, fetching it with pip (or from `archive`) if it is not there.

        Raises `SourceUntrusted`, `ToolFailed` if pip cannot get it, `DiskFull`, `NotFound` if there is no `archive`.
        """
        folder = self.folder(cache)
        if self.is_ready(cache):
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".llama.cpp-", dir=folder.parent) as name:
            scratch = Path(name)
            if archive is None:
                progress(f"fetching {self.project} {self.version}")
                archive = self._download(scratch, folder.with_name(folder.name + ".log"))
            self._check(archive)
            progress(f"unpacking {archive.name}")
            unpack(archive, scratch / "tree", inside=self.inside)
            os.sync()
            (scratch / "tree").rename(folder)
        return folder

    def _download(self, scratch: Path, log: Path) -> Path:
        wanted = scratch / "wanted.txt"
        wanted.write_text(f"{self.project}=={self.version} --hash=sha256:{self.sha256}\n")
        got = scratch / "got"
        log.unlink(missing_ok=True)
        try:
            run(
                [
                    *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"),
                    *("--no-binary", self.project, "--require-hashes", "--requirement", wanted, "--dest", got),
                ],
                log=log,
                doing=f"fetching {self.project} {self.version}",
                fix="check the package index that pip is set up with, or give a downloaded file with --source",
            )
        except ToolFailed as error:
            if "DO NOT MATCH THE HASHES" in log.read_text(errors="replace"):
                raise self._untrusted("the package index", "another archive") from error
            raise
        return next(got.iterdir())

    def _check(self, archive: Path) -> None:
        if not archive.is_file():
            raise NotFound("there is no such file", where=str(archive))
        found, _ = hash_file(PosixDisk(), archive)
        if found.hex != self.sha256:
            raise self._untrusted(str(archive), f"SHA-256 {found.hex[:16]}...")

    def _untrusted(self, where: str, found: str) -> SourceUntrusted:
        return SourceUntrusted(
            f"{found} where {self.project} {self.version} with SHA-256 {self.sha256[:16]}... is expected",
            where=where,
            fix="nothing of it was used; get the very file from an index you trust",
        )


def unpack(archive: Path, folder: Path, *, inside: str) -> None:
    """Write the members below `<top>/<inside>/` of a gzipped tar into `folder`.

    Raises `SourceUntrusted` for members that lead out, are no files, folders or links, or are too many or too large.
    """
    count = size = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                count, size = count + 1, size + member.size
                if count > MEMBERS_MAX or size > UNPACKED_BYTES_MAX:
                    raise SourceUntrusted("it unpacks to more than any source would", where=str(archive))
                name = _below(member.name, inside)
                if name is not None:
                    tar.extract(member.replace(name=name, deep=False), folder, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise SourceUntrusted(f"not an archive to unpack: {error}", where=str(archive)) from error
    except OSError as error:
        full = "No space left on device"
        if error.strerror == full:
            raise DiskFull(f"cannot unpack: {full}", where=str(folder), fix="free space on this disk") from error
        raise SourceUntrusted(f"not an archive to unpack: {error}", where=str(archive)) from error
    if not folder.is_dir():
        raise SourceUntrusted(f"it has no {inside}", where=str(archive))


def _below(name: str, inside: str) -> str | None:
    """Return the part of a member's name below `<top>/<inside>/`, or None if it is elsewhere or tries to climb."""
    parts, wanted = PurePosixPath(name).parts[1:], PurePosixPath(inside).parts
    if parts[: len(wanted)] != wanted or len(parts) == len(wanted) or ".." in parts:
        return None
    return "/".join(parts[len(wanted) :])

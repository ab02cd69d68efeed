"""A bundle is the same for the same files, and what another hand wrote is refused."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupelet.forge import bundle
from drupelet.forge.bundle import BundleBad, members, unpack, write_bundle

FILES = {"model.onnx": b"graph", "deep/er/weights.bin": bytes(range(256)) * 5, "empty": b""}


def _folder(at: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(data)
    return at


def _bundle(folder: Path) -> bytes:
    out = io.BytesIO()
    write_bundle(folder, lambda data: out.write(data) and None)
    return out.getvalue()


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    return _bundle(_folder(tmp_path / "source", FILES))


def test_the_same_files_are_the_same_bytes_whoever_wrote_them_when(tmp_path: Path, whole: bytes) -> None:
    other = _folder(tmp_path / "other", dict(reversed(FILES.items())))
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    assert _bundle(other) == whole


def test_what_goes_in_comes_out_and_tar_reads_it_too(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(whole)
    written = unpack(path, tmp_path / "out")
    assert {str(one.relative_to(tmp_path / "out")): one.read_bytes() for one in written} == FILES
    listed = subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(listed) == sorted(FILES)


def _entry(name: str = "a", *, data: bytes = b"x", **changes: object) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    for key, value in changes.items():
        setattr(header, key, value)
    return header.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


END = bytes(1024)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "does not end"),
        (END, "no file in it"),
        (b"x" * 512 + END, "no file at byte 0"),
        (_entry(), "does not end"),
        (_entry() + END + b"more", "does not end"),
        (_entry("/etc/passwd") + END, "is no name"),
        (_entry("../a") + END, "is no name"),
        (_entry("a/../b") + END, "is no name"),
        (_entry("a//b") + END, "is no name"),
        (_entry("a\nb") + END, "is no name"),
        (_entry(".hidden") + END, "is no name"),
        (_entry("a/b/c/d/e") + END, "is no name"),
        (_entry("a" * 150) + END, "is no plain file"),
        (_entry(type=tarfile.SYMTYPE, linkname="/etc") + END, "is no plain file"),
        (_entry(type=tarfile.LNKTYPE, linkname="b") + END, "is no plain file"),
        (_entry(type=tarfile.DIRTYPE) + END, "is no plain file"),
        (_entry(type=tarfile.CHRTYPE) + END, "is no plain file"),
        (_entry(type=tarfile.GNUTYPE_SPARSE) + END, "is no plain file"),
        (_entry(type=tarfile.XHDTYPE) + END, "is no plain file"),
        (_entry("b") + _entry("a") + END, "out of order"),
        (_entry("a") + _entry("a") + END, "there twice"),
        (_entry(size=1 << 40) + END, "says that it has"),
        (_entry(size=4096) + END, "ends within"),
    ],
)
def test_what_the_writer_would_not_write_is_refused_and_nothing_is_unpacked(
    tmp_path: Path, data: bytes, why: str
) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(data)
    with pytest.raises(BundleBad, match=why):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_many_files_are_refused_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bytes) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(whole)
    monkeypatch.setattr(bundle, "FILES_MAX", 2)
    with pytest.raises(BundleBad, match="more than 2 files"):
        members(path)
    with pytest.raises(BundleBad, match="there are 3 files where 1 to 2 are allowed"):
        _bundle(tmp_path / "source")


@pytest.mark.parametrize("name", ["link", ".hidden", "with space"])
def test_what_may_not_be_in_one_is_not_written(tmp_path: Path, name: str) -> None:
    folder = _folder(tmp_path / "source", {"a": b"x"})
    if name == "link":
        (folder / name).symlink_to(folder / "a")
    else:
        (folder / name).write_bytes(b"x")
    with pytest.raises(BundleBad, match="cannot be in a bundle"):
        _bundle(folder)


def test_a_bundle_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleBad, match="cannot be read"):
        members(tmp_path / "none")


@given(cut=st.integers(0, 4607), flip=st.integers(1, 255))
def test_a_cut_or_changed_bundle_is_a_bundle_or_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int
) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    data = _bundle(_folder(folder / "source", FILES))
    path = folder / "bundle"
    path.write_bytes(data[:cut])
    with pytest.raises(BundleBad):
        members(path)
    path.write_bytes(data[:cut] + bytes([data[cut] ^ flip]) + data[cut + 1 :])
    try:
        found = members(path)
    except BundleBad:
        return
    assert all(member.offset + member.size_bytes <= len(data) for member in found)

"""The runtime's image, as far as nothing has to be compiled, installed or emulated for it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from drupelet.cli.forge.image import epoch
from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import Digest
from drupelet.depot.files import FilesDepot
from drupelet.durable import PosixDisk
from drupelet.forge.errors import NoRuntime, PackageBad
from drupelet.forge.publish import publish
from drupelet.forge.runtime.base import NoEmulation, build_base, require_emulation
from drupelet.forge.runtime.bom import bill, debian_packages
from drupelet.forge.runtime.image import build_image, order_platforms, read_image, write_context
from drupelet.forge.runtime.payload import Payload, Program, Wheel, requirements
from drupelet.forge.runtime.vouching import describe, open_built
from drupelet.forge.toolchain.servers import TARGETS
from drupelet.forge.toolchain.venvs import ToolMissing
from drupelet.wire.codec import encode_canonical
from drupelet.wire.manifest import Requires
from tests.wire import examples
from tests.wire.test_runtime import a_runtime

STATUS = """Package: libc6
Status: install ok installed
Source: glibc (2.36-9)
Architecture: arm64
Version: 2.36-9+deb12u13
Description: GNU C Library
 with: a line that looks like a field

Package: gone
Status: deinstall ok config-files
Architecture: arm64
Version: 1.0
"""


def a_payload(folder: Path, arch: str = "arm64") -> Payload:
    """Return what a payload says of itself; there is no tree."""
    return Payload(
        folder=folder,
        target=TARGETS[arch],
        python="3.11",
        wheels=(Wheel(name="msgspec", version="0.22.0", sha256="0" * 64, license="BSD-3-Clause"),),
        programs=(Program(level="armv8-a", digest=Digest.of_hex("1" * 64), size_bytes=1),),
    )


def a_built_image(folder: Path, *, order: tuple[str, ...] = ("amd64", "arm64")) -> Path:
    """Write what `drupelet forge image` leaves: a layout of two platforms in this order, bills, the manifest."""
    blobs = folder / "oci" / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(value: object, kind: str = "image.layer.v1.tar") -> dict[str, object]:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    def oci(kind: str, value: dict[str, object]) -> dict[str, object]:
        return {"schemaVersion": 2, "mediaType": f"application/vnd.oci.{kind}", **value}

    entries = []
    for arch in order:
        config = put({"architecture": arch, "os": "linux"}, "image.config.v1+json")
        manifest = oci("image.manifest.v1+json", {"config": config, "layers": [put(b"layer of " + arch.encode())]})
        entries.append({**put(manifest, "image.manifest.v1+json"), "platform": {"os": "linux", "architecture": arch}})
        (folder / f"bom-{arch}.cdx.json").write_bytes(bill(a_payload(folder, arch), epoch_s=0))
    (folder / "oci" / "index.json").write_text(
        json.dumps({"manifests": [put(oci("image.index.v1+json", {"manifests": entries}))]})
    )
    boms = {arch: (folder / f"bom-{arch}.cdx.json").read_bytes() for arch in TARGETS}
    payloads = [a_payload(folder, arch) for arch in TARGETS]
    (folder / "runtime.json").write_bytes(describe(read_image(folder / "oci"), payloads, boms, created_at_ms=0))
    return folder


def test_an_image_is_the_same_whichever_platform_was_ready_first(tmp_path: Path) -> None:
    found = []
    for order in (("amd64", "arm64"), ("arm64", "amd64")):
        layout = a_built_image(tmp_path / "-".join(order), order=order) / "oci"
        order_platforms(layout)
        image = read_image(layout)
        found.append((image.index, [one.digest for one in image.platforms]))
        order_platforms(layout)
        assert read_image(layout) == image, "doing it twice changes nothing"
    assert found[0] == found[1]


def test_the_device_gets_its_own_requirements_and_its_own_llama_server() -> None:
    wanted = requirements()
    names = {re.match(r"[A-Za-z0-9_-]+", text)[0] for text in wanted}  # type: ignore[index]
    assert {"msgspec", "tuf", "aiohttp", "cryptography"} <= names
    assert not names & {"xllamacpp", "fastapi", "numpy", "pytest"}


def test_the_bill_names_packages_wheels_and_programs_and_is_the_same_every_time(tmp_path: Path) -> None:
    packages = debian_packages(STATUS)
    assert [(one.name, one.version, one.source) for one in packages] == [("libc6", "2.36-9+deb12u13", "glibc")]
    written = bill(a_payload(tmp_path), base=packages, suite="bookworm", epoch_s=0)
    assert written == bill(a_payload(tmp_path), base=packages, suite="bookworm", epoch_s=0)
    document = json.loads(written)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    purls = {one.get("purl") for one in document["components"]}
    assert "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=arm64&distro=bookworm" in purls
    assert "pkg:pypi/msgspec@0.22.0" in purls
    refs = [one["bom-ref"] for one in document["components"]]
    assert refs == sorted(set(refs))


def test_an_image_is_described_and_found_again(tmp_path: Path) -> None:
    built = open_built(a_built_image(tmp_path), disk=PosixDisk())
    assert [one.platform for one in built.image.platforms] == ["linux/amd64", "linux/arm64"]
    assert built.manifest.index == built.image.index.text
    assert {one.platform for one in built.manifest.engine.builds} == {"linux/amd64", "linux/arm64"}


def _swap_the_index(folder: Path) -> None:
    index = json.loads((folder / "oci" / "index.json").read_text())
    path = folder / "oci" / "blobs" / "sha256" / index["manifests"][0]["digest"][7:]
    other = path.read_bytes() + b" "
    digest = hashlib.sha256(other).hexdigest()
    (path.parent / digest).write_bytes(other)
    index["manifests"][0]["digest"] = f"sha256:{digest}"
    (folder / "oci" / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "change",
    [_swap_the_index, lambda folder: (folder / "bom-arm64.cdx.json").write_text("{}")],
    ids=["index", "bill"],
)
def test_an_image_changed_after_it_was_built_is_not_signed(tmp_path: Path, change: object) -> None:
    folder = a_built_image(tmp_path)
    change(folder)  # type: ignore[operator]
    with pytest.raises(PackageBad, match="not the one its manifest names"):
        open_built(folder, disk=PosixDisk())


def test_a_blob_that_is_not_what_its_name_says_is_not_read(tmp_path: Path) -> None:
    built = open_built(a_built_image(tmp_path), disk=PosixDisk())
    path = built.image.layout / "blobs" / "sha256" / built.image.platforms[0].digest.hex
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(PackageBad, match="is damaged"):
        open_built(tmp_path, disk=PosixDisk())


def test_no_image_is_not_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no runtime was built here"):
        open_built(tmp_path, disk=PosixDisk())
    (tmp_path / "index.json").write_text('{"manifests": []}')
    with pytest.raises(BadInput, match="0 images in one layout"):
        read_image(tmp_path)


def test_a_release_that_no_signed_runtime_serves_is_not_published(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(encode_canonical(examples.manifest(requires=Requires(runtime_min="9.0"))))
    depot = FilesDepot(PosixDisk(), tmp_path / "depot")
    nobody: Any = None
    with pytest.raises(NoRuntime, match=r"needs drupelet 9\.0, this is 0\.2"):
        publish(tmp_path, disk=PosixDisk(), depot=depot, repository=nobody, keys=nobody, runtimes=[a_runtime("0.2")])


def test_a_missing_tool_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolMissing, match="llama-server for amd64 was not built here") as caught:
        write_context(tmp_path, arches=["amd64"], cache=tmp_path, day="2026-01-01", epoch_s=0)
    assert caught.value.fix == "run: drupelet forge toolchain build llama-server-amd64"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="there is no buildah on the path") as caught:
        build_image(tmp_path, arches=["amd64"], store=tmp_path, epoch_s=0)
    assert "docker buildx" in caught.value.fix
    with pytest.raises(ToolMissing, match="there is no mmdebstrap"):
        build_base(tmp_path, arch="amd64", machine="x86_64", day="2026-01-01", epoch_s=0)


def test_a_machine_that_cannot_emulate_says_so(tmp_path: Path) -> None:
    require_emulation("arm64", "aarch64", here="aarch64", binfmt=tmp_path)
    with pytest.raises(NoEmulation, match="does not run programs for arm64") as caught:
        require_emulation("arm64", "aarch64", here="x86_64", binfmt=tmp_path)
    assert "qemu-user-static" in caught.value.fix
    (tmp_path / "qemu-aarch64").touch()
    require_emulation("arm64", "aarch64", here="x86_64", binfmt=tmp_path)


def test_the_time_in_an_image_is_told_or_midnight() -> None:
    assert epoch({}, now_s=1795771234) == 1795737600
    assert epoch({"SOURCE_DATE_EPOCH": "17"}, now_s=1795771234) == 17
    with pytest.raises(BadInput, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        epoch({"SOURCE_DATE_EPOCH": "yesterday"}, now_s=0)

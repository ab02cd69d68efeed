"""Runtime and release name each other's minimum; both must agree."""

from __future__ import annotations

import msgspec
import pytest

from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.wire.codec import Malformed, decode, encode_canonical
from drupelet.wire.manifest import Requires
from drupelet.wire.runtime import (
    Engine,
    EngineBuild,
    PlatformImage,
    RuntimeManifest,
    Serves,
    served,
    unserved_by_all,
)
from tests.wire import examples

DIGEST = ["sha256:" + 64 * digit for digit in "0123"]


def a_runtime(version: str = "0.2", *, models_min: dict[str, str] | None = None, **changed: object) -> RuntimeManifest:
    """Return a small manifest of a runtime for both platforms."""
    runtime = RuntimeManifest(
        version=version,
        created_at_ms=0,
        index=DIGEST[0],
        platforms=(
            PlatformImage(platform="linux/amd64", digest=DIGEST[1], size_bytes=10, bom=DIGEST[3]),
            PlatformImage(platform="linux/arm64", digest=DIGEST[2], size_bytes=10, bom=DIGEST[3]),
        ),
        engine=Engine(
            name="llama.cpp",
            source="llama-cpp-python 0.3.36",
            source_digest=DIGEST[3],
            builds=(EngineBuild(platform="linux/arm64", level="armv8-a", digest=DIGEST[3]),),
        ),
        serves=Serves(models_min=models_min or {}),
    )
    return msgspec.structs.replace(runtime, **changed)


@pytest.mark.parametrize(
    ("version", "runtime_min", "serves", "reason"),
    [
        ("0.2", "0.1", Serves(), None),
        ("0.2.0", "0.2", Serves(), None),
        ("0.10", "0.9", Serves(), None),
        ("0.1", "0.2", Serves(), Reason.RUNTIME_TOO_OLD),
        ("", "0.1", Serves(), Reason.RUNTIME_TOO_OLD),
        ("0.2", "0.1", Serves(models_min={"kiosk": "1.2"}), None),
        ("0.2", "0.1", Serves(models_min={"kiosk": "1.10"}), Reason.RELEASE_TOO_OLD),
        ("0.2", "0.1", Serves(models_min={"sign": "9.0"}), None),
        ("0.2", "0.1", Serves(manifest_formats=("drupelet.manifest/2",)), Reason.RUNTIME_TOO_OLD),
    ],
)
def test_both_sides_are_asked(version: str, runtime_min: str, serves: Serves, reason: Reason | None) -> None:
    manifest = examples.manifest(requires=Requires(runtime_min=runtime_min), family="kiosk", version="1.2")
    found = served(manifest, version=version, serves=serves)
    assert (found.reason if found else None) is reason
    assert found is None or found.detail


def test_a_release_needs_one_runtime_of_those_that_are_signed() -> None:
    manifest = examples.manifest(requires=Requires(runtime_min="0.3"))
    assert unserved_by_all(manifest, []) is None, "where no runtime is signed the devices are left to say it"
    assert unserved_by_all(manifest, [a_runtime("0.2"), a_runtime("0.3")]) is None
    found = unserved_by_all(manifest, [a_runtime("0.1"), a_runtime("0.2")])
    assert found is not None
    assert found.detail == "needs drupelet 0.3, this is 0.2"


def test_an_image_is_known_by_the_index_or_by_its_own_platform() -> None:
    runtime = a_runtime()
    assert runtime.digests("linux/arm64") == {Digest.parse(DIGEST[0]), Digest.parse(DIGEST[2])}
    assert runtime.digests("linux/riscv64") == frozenset()
    assert runtime.path == "runtime/0.2/runtime.json"


def test_a_manifest_is_read_as_it_was_written_and_two_images_of_one_platform_are_refused() -> None:
    runtime = a_runtime(models_min={"kiosk": "1.0"})
    assert decode(RuntimeManifest, encode_canonical(runtime)) == runtime
    twice = encode_canonical(runtime).replace(b"linux/amd64", b"linux/arm64")
    with pytest.raises(Malformed, match="two images have one platform"):
        decode(RuntimeManifest, twice)

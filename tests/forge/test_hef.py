"""A HEF is what its published layout says, or refused with the reason; what binds it reaches the manifest."""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupelet.cli.main import main
from drupelet.core.errors import BadInput
from drupelet.durable import PosixDisk
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.errors import ModelFileBad, RecipeBad
from drupelet.forge.formats import FORMATS
from drupelet.forge.hef import read_hef
from drupelet.forge.imports import import_hef, importer_of
from drupelet.forge.locks import hef_lock
from drupelet.wire.codec import decode
from drupelet.wire.manifest import Lock, ReleaseManifest
from tests.fakes.hef_writer import HefSpec, hef, write_hef

WITH_RESOURCES = HefSpec(resources=(b"tokenizer" * 9, b"embeddings" * 40), description_checksum=True)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_every_published_header_is_read(tmp_path: Path, version: int) -> None:
    found = read_hef(write_hef(tmp_path / "a.hef", HefSpec(version=version)))
    assert (found.header_version, found.size_bytes) == (version, (tmp_path / "a.hef").stat().st_size)
    assert found.chips == ("hailo15h", "hailo10h")
    assert (found.compiler, found.strict, found.networks) == ("5.1.0", True, 1)


def test_resources_and_an_old_compilers_text_are_read(tmp_path: Path) -> None:
    assert read_hef(write_hef(tmp_path / "a.hef", WITH_RESOURCES)).strict
    old = HefSpec(version=2, chip=3, compiler=(0, 0, 0), compiler_text="3.27.0", extensions=(0, 33))
    found = read_hef(write_hef(tmp_path / "b.hef", old))
    assert (found.compiler, found.strict, found.chips) == ("3.27.0", False, ("hailo8l", "hailo8"))


def _patched(data: bytes, offset: int, form: str, value: int) -> bytes:
    return data[:offset] + struct.pack(form, value) + data[offset + struct.calcsize(form) :]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "too short"),
        (hef()[:11], "too short"),
        (hef()[:40], "ends within its header"),
        (b"GGUF" + hef()[4:], "does not begin as one"),
        (_patched(hef(), 4, ">I", 4), "version 4; 0 to 3 are known"),
        (_patched(hef(), 8, ">I", 0), "description has 0 bytes"),
        (_patched(hef(), 8, ">I", 0xFFFFFFFF), "description has 4294967295 bytes"),
        (hef()[:-1], "promises"),
        (hef() + b"x", "promises"),
        (_patched(hef(HefSpec(version=2)), 20, ">Q", 1 << 63), "promises"),
        (hef(HefSpec(version=0))[:-1] + b"\x00", "checksum is not that"),
        (hef(HefSpec(version=1))[:-1] + b"\x00", "checksum is not that"),
        (hef(HefSpec(version=2))[:-1] + b"\x00", "checksum is not that"),
        (hef()[:-1] + b"\x00", "checksum is not that"),
        (_patched(hef(), 28, ">I", 1 << 20), "checksum is not that"),
        (hef(WITH_RESOURCES)[:-1] + b"\x00", "checksum of a resource"),
        (hef(HefSpec(chip=105)), "chip number 105, which is not known"),
        (hef(HefSpec(networks=0)), "no network in it"),
        (hef(HefSpec(compiler=(0, 0, 0))), "does not say which compiler"),
    ],
)
def test_what_is_none_is_refused_with_the_reason(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "a.hef"
    path.write_bytes(data)
    with pytest.raises(ModelFileBad, match=why):
        read_hef(path)


def test_a_description_that_is_none_is_refused(tmp_path: Path) -> None:
    good = hef(HefSpec(version=1))
    size = struct.unpack_from(">I", good, 8)[0]
    # The checksum is right, what it covers is not.
    bad = good[:12] + struct.pack(">IQI", 0, 0, 0) + b"\xff" * size
    path = tmp_path / "a.hef"
    path.write_bytes(_patched(bad, 12, ">I", zlib.crc32(b"\xff" * size)))
    with pytest.raises(ModelFileBad, match="description is none"):
        read_hef(path)
    path.write_bytes(hef(HefSpec(version=2, extensions=range(1_001))))
    with pytest.raises(ModelFileBad, match="more extensions"):
        read_hef(path)


@given(version=st.integers(0, 3), at=st.integers(0, 2_000), flip=st.integers(1, 255), cut=st.integers(0, 2_000))
def test_no_damage_surprises_the_reader(
    tmp_path_factory: pytest.TempPathFactory, version: int, at: int, flip: int, cut: int
) -> None:
    data = hef(HefSpec(version=version))
    path = tmp_path_factory.mktemp("hef") / "a.hef"
    at %= len(data)
    for damaged in (data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :], data[: cut % len(data)], data[at:]):
        path.write_bytes(damaged)
        try:
            found = read_hef(path)
        except ModelFileBad:
            continue
        # A reserved byte of the header may be anything, and so may a file that was not damaged after all.
        assert found.compiler == "5.1.0"


def test_an_import_is_a_copy_that_was_checked_or_nothing(tmp_path: Path) -> None:
    source, out = write_hef(tmp_path / "kiosk.hef"), tmp_path / "out" / "hef.hef"
    artifact = import_hef(source, out, quantization="w4a8", disk=PosixDisk(), progress=lambda *_: None)
    assert out.read_bytes() == source.read_bytes()
    assert artifact.size_bytes == out.stat().st_size
    source.write_bytes(hef()[:-1])
    with pytest.raises(ModelFileBad, match=r"kiosk.hef: its header promises"):
        import_hef(source, tmp_path / "out" / "b.hef", quantization="w4a8", disk=PosixDisk(), progress=lambda *_: None)
    with pytest.raises(ModelFileBad, match="no such file"):
        import_hef(
            tmp_path / "none", tmp_path / "out" / "b.hef", quantization="w4a8", disk=PosixDisk(),
            progress=lambda *_: None,
        )  # fmt: skip
    assert [path.name for path in out.parent.iterdir()] == ["hef.hef"]


def test_a_hef_is_not_made_here_and_other_formats_are_not_taken(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="compiled by Hailo's tools, not made here; give the variant a file"):
        FORMATS["hef"].write(
            open_checkpoint(tiny), tmp_path / "a.hef", quantization="int4", model_name="tiny", disk=PosixDisk(),
            progress=lambda *_: None,
        )  # fmt: skip
    with pytest.raises(BadInput, match="a file of the format onnx is not taken as it is"):
        importer_of("onnx")


STRICT = HefSpec()
LOOSE = dataclasses.replace(STRICT, compiler=(3, 30, 0), chip=3, extensions=())


@pytest.mark.parametrize(
    ("spec", "given", "expected"),
    [
        (
            STRICT,
            Lock(),
            Lock(
                compiler="hailo-dfc 5.1.0", accelerators=("hailo15h", "hailo10h"), driver="hailo 5.1.0",
                driver_series=True,
            ),
        ),
        (
            STRICT,
            Lock(accelerators=("hailo10h",), driver="hailo 5.1.1", firmware_min="5.1.1"),
            Lock(
                compiler="hailo-dfc 5.1.0", accelerators=("hailo10h",), driver="hailo 5.1.1", driver_series=True,
                firmware_min="5.1.1",
            ),
        ),
        (
            LOOSE,
            Lock(driver="hailo 4.20.0"),
            Lock(compiler="hailo-dfc 3.30.0", accelerators=("hailo8l", "hailo8"), driver="hailo 4.20.0"),
        ),
    ],
)  # fmt: skip
def test_what_binds_it_is_what_it_says_and_what_the_recipe_adds(
    tmp_path: Path, spec: HefSpec, given: Lock, expected: Lock
) -> None:
    assert hef_lock(read_hef(write_hef(tmp_path / "a.hef", spec)), given, name="npu") == expected


@pytest.mark.parametrize(
    ("spec", "given", "why"),
    [
        (STRICT, Lock(accelerators=("hailo8",)), "runs on hailo15h or hailo10h, not on hailo8"),
        (STRICT, Lock(driver="hailo 5.2.0"), "runs only with HailoRT 5.1"),
        (STRICT, Lock(driver="coral 1.0"), "no driver of a Hailo chip"),
        (STRICT, Lock(driver="hailo"), "no driver of a Hailo chip"),
        (LOOSE, Lock(), "does not say which driver it needs"),
    ],
)
def test_a_recipe_that_contradicts_a_file_or_leaves_out_too_much_is_refused(
    tmp_path: Path, spec: HefSpec, given: Lock, why: str
) -> None:
    with pytest.raises(RecipeBad, match=why):
        hef_lock(read_hef(write_hef(tmp_path / "a.hef", spec)), given, name="npu")


RELEASE = b"""
format = "drupelet.recipe/1"
family = "tiny"
model = "tiny"
context_tokens = 64
[[variants]]
name = "npu"
quantization = "w4a8"
file_format = "hef"
file = "tiny.hef"
memory_bytes = 1_000_000
evaluated_elsewhere = "on a Pi 5 with an AI HAT+ 2, 10 of 10 prompts"
lock = { firmware_min = "5.1.0" }
[[variants]]
name = "q8_0"
quantization = "q8_0"
[[canonical_prompts]]
id = "anything"
prompt = "Where is the milk?"
tokens_max = 6
expect = [{ kind = "tokens_min", value = "1" }]
[evaluation]
prompts = ["When do you open on Sunday?"]
answer_tokens_max = 4
[quality]
kl_mean_max = 0.05
top1_agreement_min = 0.5
"""


def _build(tiny: Path, recipe: bytes, out: Path) -> int:
    (tiny.parent / "recipe.toml").write_bytes(recipe)
    with pytest.raises(SystemExit) as ended:
        main(
            ["forge", "build", str(tiny.parent / "recipe.toml"), "--checkpoint", str(tiny), "--version", "1.0", "--out",
             str(out)]
        )  # fmt: skip
    return int(ended.value.code or 0)


def test_a_compiled_variant_beside_a_made_one_is_packed_with_what_binds_it(tiny: Path, tmp_path: Path) -> None:
    write_hef(tiny.parent / "tiny.hef")
    assert _build(tiny, RELEASE, tmp_path / "package") == 0
    manifest = decode(ReleaseManifest, (tmp_path / "package" / "manifest.json").read_bytes())
    npu, plain = manifest.variants
    assert (npu.file_format, npu.npu_required, npu.memory[0].memory_bytes) == ("hef", True, 1_000_000)
    assert npu.lock == Lock(
        compiler="hailo-dfc 5.1.0", accelerators=("hailo15h", "hailo10h"), driver="hailo 5.1.0", driver_series=True,
        firmware_min="5.1.0",
    )  # fmt: skip
    assert (plain.file_format, plain.lock, plain.npu_required) == ("gguf", None, False)
    report = json.loads((tmp_path / "package" / "report.json").read_bytes())
    assert any("10 of 10 prompts" in note for note in report["variants"][0]["notes"])
    assert (tmp_path / "package" / "npu.hef").read_bytes() == hef()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'file = "tiny.hef"\n', b"", "a hef file is not made here"),
        (b"memory_bytes = 1_000_000\n", b"", "memory_bytes must say what is known of it"),
        (b'evaluated_elsewhere = "on', b'# "', "evaluated_elsewhere must say"),
        (
            b'quantization = "q8_0"',
            b'quantization = "q8_0"\nmemory_bytes = 5',
            "memory_bytes is for what cannot be run",
        ),
        (b'firmware_min = "5.1.0"', b'driver = "hailo 4.20.0"', "runs only with HailoRT 5.1"),
        (b'file = "tiny.hef"', b'file = "other.hef"', "other.hef: cannot be read"),
    ],
)
def test_what_a_recipe_must_say_of_a_compiled_file(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: bytes, new: bytes, said: str
) -> None:
    write_hef(tiny.parent / "tiny.hef")
    assert old in RELEASE
    assert _build(tiny, RELEASE.replace(old, new, 1), tmp_path / "package") == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("spec", "said"), [(STRICT, "5.1, exactly"), (LOOSE, "not said")])
def test_what_the_command_says_of_a_compiled_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spec: HefSpec, said: str
) -> None:
    path = str(write_hef(tmp_path / "kiosk.hef", spec))
    with pytest.raises(SystemExit) as ended:
        main(["forge", "import", path])
    assert not ended.value.code
    printed = capsys.readouterr()
    assert said in " ".join(printed.out.split())
    assert ("lock = {" in printed.err) == (not spec.extensions)
    with pytest.raises(SystemExit):
        main(["forge", "import", path, "-o", "json"])
    assert json.loads(capsys.readouterr().out)["compiler"] == ".".join(map(str, spec.compiler))

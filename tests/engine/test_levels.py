"""Which build of llama-server runs where: a table, and files that lie about the CPU."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from drupelet.core.errors import BadInput
from drupelet.engine.levels import LEVELS, NoServer, choose, cpu_flags, cpuinfo_flags, find, hwcap_flags

ARM = ["llama-server-armv8-a", "llama-server-armv8.2-a+dotprod+fp16"]
PC = ["llama-server-x86-64", "llama-server-x86-64-v3"]
PI_5 = frozenset({"asimd", "fphp", "asimdhp", "asimddp"})
V3 = frozenset({"sse4_2", "avx", "avx2", "bmi2", "fma", "f16c"})


@pytest.mark.parametrize(
    ("machine", "flags", "present", "level"),
    [
        ("aarch64", PI_5, ARM, "armv8.2-a+dotprod+fp16"),
        ("aarch64", frozenset({"asimd"}), ARM, "armv8-a"),
        ("aarch64", PI_5 - {"asimddp"}, ARM, "armv8-a"),
        ("aarch64", PI_5 - {"asimdhp"}, ARM, "armv8-a"),
        ("aarch64", None, ARM, "armv8-a"),
        ("aarch64", PI_5, ARM[:1], "armv8-a"),
        ("aarch64", frozenset({"asimd"}), ARM[1:], None),
        ("aarch64", PI_5, [], None),
        ("x86_64", V3 | {"avx512f"}, PC, "x86-64-v3"),
        ("x86_64", V3 - {"f16c"}, PC, "x86-64"),
        ("x86_64", None, PC, "x86-64"),
        ("x86_64", V3, ARM, None),
        ("riscv64", None, ARM, None),
        ("", None, ARM, None),
    ],
)
def test_the_fastest_build_that_the_cpu_can_run(
    machine: str, flags: frozenset[str] | None, present: list[str], level: str | None
) -> None:
    chosen = choose(machine, flags, present)
    assert (chosen.level.name if chosen.level else None) == level
    assert chosen.why


def test_every_machine_has_a_build_that_needs_nothing() -> None:
    for machine in {level.machine for level in LEVELS}:
        assert not [level for level in LEVELS if level.machine == machine][-1].needs


def test_the_vector_of_a_pi_5_and_of_a_pi_4() -> None:
    # AT_PAGESZ, AT_HWCAP, AT_NULL; the words are what Linux shows on a Cortex-A76 and on a Cortex-A72.
    def vector(hwcap: int) -> bytes:
        return struct.pack("<6Q", 6, 4096, 16, hwcap, 0, 0)

    assert hwcap_flags(vector(0x119FFF)) == PI_5
    assert hwcap_flags(vector(0x8FF)) == {"asimd"}
    assert hwcap_flags(b"\0" * 7) is None


def test_a_flag_counts_only_if_every_core_has_it() -> None:
    assert cpuinfo_flags("flags\t\t: avx avx2\n\nflags\t: avx\n") == {"avx"}
    assert cpuinfo_flags("Features\t: asimd\n") is None


def test_no_proc_is_not_an_error(tmp_path: Path) -> None:
    assert cpu_flags("aarch64", proc=tmp_path) is None
    assert cpu_flags("x86_64", proc=tmp_path) is None


def test_a_program_is_taken_as_named_and_a_folder_is_chosen_from(tmp_path: Path) -> None:
    for name in PC:
        (tmp_path / name).touch(mode=0o755)
    named = tmp_path / PC[0]
    assert find(named)[0] == named
    assert find(tmp_path, machine="x86_64", flags=V3)[0].name == PC[1]


def test_a_missing_server_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoServer, match="there is no llama-server") as caught:
        find(tmp_path / "nothing")
    assert "child.llama_server" in caught.value.fix


def test_a_machine_without_a_build_is_named(tmp_path: Path) -> None:
    (tmp_path / ARM[0]).touch(mode=0o755)
    with pytest.raises(NoServer, match="riscv64 has no build; there are builds for aarch64, x86_64"):
        find(tmp_path, machine="riscv64")
    with pytest.raises(NoServer, match="llama-server-x86-64 is not there"):
        find(tmp_path, machine="x86_64")


def test_a_server_that_may_not_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "llama-server").touch(mode=0o644)
    with pytest.raises(BadInput, match="may not be executed"):
        find(tmp_path / "llama-server")

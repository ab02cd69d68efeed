"""What a variant's file is bound to: what the file itself says, and what the recipe adds where it is silent. Pure but
for reading the file's own header.

A recipe may say more than a file, and may not contradict it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from drupelet.forge.errors import RecipeBad
from drupelet.forge.hef import HefFile, read_hef
from drupelet.forge.recipe import Recipe
from drupelet.wire.fitness import numbers
from drupelet.wire.manifest import Lock

DRIVER = "hailo"


def locks(recipe: Recipe, files: Mapping[str, Path]) -> dict[str, Lock]:
    """Return name -> lock of every variant that has one; `files` is where compiled variants lie, by name.

    Raises `ModelFileBad` for a file that is none, `RecipeBad` for a recipe that contradicts it or leaves out too much.
    """
    found = {}
    for variant in recipe.variants:
        if variant.file_format == "hef":
            found[variant.name] = hef_lock(read_hef(files[variant.name]), variant.lock or Lock(), name=variant.name)
        elif variant.lock is not None:
            found[variant.name] = variant.lock
    return found


def hef_lock(file: HefFile, given: Lock, *, name: str) -> Lock:
    """Return the lock of a compiled file: chip and compiler as it says, driver and firmware as the recipe does.

    A file with strict versioning runs with the compiler's own series of HailoRT, whose driver has the same numbers.
    """
    where = f"variant {name}"
    strangers = set(given.accelerators) - set(file.chips)
    if strangers:
        what = f"its file runs on {' or '.join(file.chips)}, not on {', '.join(sorted(strangers))}"
        raise RecipeBad(what, where=where, fix="mend lock.accelerators, or take another file")
    series = numbers(file.compiler)[:2]
    derived = f"{DRIVER} {'.'.join(map(str, series))}.0" if file.strict else ""
    driver = given.driver or derived
    if not driver:
        fix = f'write what it was tried with, such as lock = {{ driver = "{DRIVER} 4.20.0" }}'
        raise RecipeBad("its file does not say which driver it needs", where=where, fix=fix)
    program, _, least = driver.partition(" ")
    if program != DRIVER or not numbers(least):
        raise RecipeBad(f"{driver!r} is no driver of a Hailo chip", where=where, fix=f"write {DRIVER} and a version")
    if file.strict and numbers(least)[:2] != series:
        what = f"its file runs only with HailoRT {'.'.join(map(str, series))}, and the recipe says {driver}"
        raise RecipeBad(what, where=where, fix="leave lock.driver out, or compile it with the version you run")
    return Lock(
        compiler=f"hailo-dfc {file.compiler}",
        accelerators=given.accelerators or file.chips,
        driver=driver,
        driver_series=file.strict or given.driver_series,
        firmware_min=given.firmware_min,
    )

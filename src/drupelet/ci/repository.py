"""Looking at somebody's repository: where recipe, checkpoint, policy and tests are; and what may be written down.

Whatever ends up in a pipeline file is checked first: a pipeline runs with secrets, and a folder called
`${{ secrets.X }}` or `$(...)` must not become part of it.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from drupelet.ci.errors import PipelineThere
from drupelet.ci.lint import SKIPPED
from drupelet.ci.pipelines import CLOUDS
from drupelet.ci.steps import Plan, Signers
from drupelet.core.errors import BadInput, NotFound
from drupelet.durable import PosixDisk
from drupelet.forge.recipe import load_recipe
from drupelet.trust.keys import KeyRing
from drupelet.trust.ring import FILE
from drupelet.trust.signers.file import variable

DEPTH_MAX = 6
"""Folders below the top in which a recipe is looked for."""
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@+-]*\Z")
_SELECTOR = re.compile(r"[A-Za-z0-9 ._/,=!()-]{0,1000}\Z")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}\Z")
_COMMAND = re.compile(r"[A-Za-z0-9./][A-Za-z0-9 ._/=:,@+-]{0,500}\Z")
IMAGE_FILES = ("Containerfile", "Dockerfile")


def plan_of(
    folder: Path,
    *,
    recipe: str = "",
    checkpoint: str = "",
    policy: str = "",
    selector: str = "",
    runtime: str = "",
    tests: str = "",
    keys: str = "keys",
    branch: str = "main",
) -> Plan:
    """Return the plan for the repository in `folder`; what is not given is looked for.

    Raises `NotFound` and `BadInput`, each naming the option that would help.
    """
    if not (folder / ".git").exists():
        raise NotFound("this is not a git repository's top", where=str(folder), fix="give its folder with --folder")
    found_recipe = _given(folder, recipe, "--recipe") if recipe else _the_one(folder, "recipe.toml", "--recipe")
    home = (folder / found_recipe).parent
    found_checkpoint = _given(folder, checkpoint, "--checkpoint") if checkpoint else _checkpoint(folder, home)
    if policy:
        found_policy = _given(folder, policy, "--policy")
    else:
        near = [path for path in (folder / "policy.toml", home / "policy.toml") if path.is_file()]
        found_policy = _relative(folder, near[0]) if near else ""
    known, _ = load_recipe(folder / found_recipe)
    if not runtime and any((folder / "runtime" / name).is_file() for name in IMAGE_FILES):
        runtime = "runtime"
    return Plan(
        family=known.family,
        recipe=found_recipe,
        checkpoint=found_checkpoint,
        policy=found_policy,
        selector=_safe(_SELECTOR, selector, "--to"),
        runtime=_given(folder, runtime, "--runtime") if runtime else "",
        tests=_tests(folder, tests),
        keys=_given(folder, keys, "--keys"),
        signers=_signers(folder, keys, known.family),
        branch=_safe(_BRANCH, branch, "--branch"),
    )


def _signers(folder: Path, keys: str, family: str) -> Signers:
    """Return where the keys are that sign a release of `family`, as the ring in `keys` says.

    Raises `BadInput` for keys that no pipeline can use, and for private keys that git would take along.
    """
    taken = subprocess.run(
        ["git", "ls-files", "--", f"{keys}/private"], cwd=folder, capture_output=True, text=True, check=False
    ).stdout.split()
    if taken:
        raise BadInput(
            "private keys are in the repository", where=f"{keys}/private",
            fix="rotate them (drupelet keys rotate): whoever has a clone has them",
        )  # fmt: skip
    ring = KeyRing(PosixDisk(), folder / keys, passphrase=lambda: "").info
    if family not in ring.families:
        raise BadInput(f"this key ring does not sign for {family!r}", where=keys, fix="drupelet keys rotate adds one")
    secrets, clouds = [], set()
    for role in (f"image/{family}", "image/snapshot", "image/timestamp", f"model/{family}"):
        for key in ring.of(role)[: ring.threshold(role)]:
            scheme = key.place.partition(":")[0]
            if scheme == FILE:
                secrets.append(variable(key.name))
            elif scheme in CLOUDS:
                clouds.add(scheme)
            else:
                raise BadInput(
                    f"{key.name} is a key of {scheme}, which no pipeline of ours enters",
                    where=keys,
                    fix=f"keep it in a file or in one of {', '.join(CLOUDS)}, or write this step yourself",
                )
    if len(clouds) > 1:
        raise BadInput(f"the keys are in several clouds: {', '.join(sorted(clouds))}", where=keys, fix="use one")
    return Signers(secrets=(*secrets, *(("DRUPELET_PASSPHRASE",) if secrets else ())), cloud="".join(clouds))


def _tests(folder: Path, command: str) -> tuple[str, ...]:
    """Return the commands of the repository's own tests: what is given, or pytest where there is something for it."""
    if command:
        return (_safe(_COMMAND, command, "--tests"),)
    if not (folder / "tests").is_dir():
        return ()
    needed = "--requirement requirements.txt" if (folder / "requirements.txt").is_file() else ""
    return (f"pip install --quiet pytest {needed}".rstrip(), "python -m pytest -q")


def refuse_other(path: Path, text: str, *, force: bool) -> bool:
    """Return whether `path` must be written: not if it holds `text` already.

    Raises `PipelineThere` if it holds another text and `force` is not given.
    """
    if not path.exists():
        return True
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    if not force:
        raise PipelineThere("there is another file of this name", where=str(path), fix="--force replaces it")
    return True


def _checkpoint(folder: Path, home: Path) -> str:
    """Return the one folder below the recipe's that looks like a checkpoint in Hugging Face's layout."""
    found = sorted(path.parent for path in home.glob("*/config.json"))
    if len(found) != 1:
        said = ", ".join(_relative(folder, path) for path in found[:5])
        what = f"several checkpoints are beside the recipe: {said}" if found else "no checkpoint is beside the recipe"
        raise NotFound(what, where=str(home), fix="say which with --checkpoint")
    return _relative(folder, found[0])


def _the_one(folder: Path, name: str, option: str) -> str:
    found = sorted(_walk(folder, name))
    if len(found) != 1:
        said = ", ".join(_relative(folder, path) for path in found[:5])
        what = f"several files are called {name}: {said}" if found else f"no {name} is here"
        raise NotFound(what, where=str(folder), fix=f"say which with {option}")
    return _relative(folder, found[0])


def _walk(folder: Path, name: str) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        deep = len(Path(here).relative_to(folder).parts)
        folders[:] = [one for one in folders if one[0] != "." and one not in SKIPPED and deep < DEPTH_MAX]
        if name in names:
            yield Path(here, name)


def _given(folder: Path, text: str, option: str) -> str:
    path = folder / text
    if not path.exists():
        raise NotFound("there is no such file or folder", where=str(path), fix=f"check {option}")
    return _relative(folder, path)


def _relative(folder: Path, path: Path) -> str:
    """Return a path as the pipeline writes it; raises `BadInput` if it leaves the repository or has odd characters."""
    try:
        text = path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError as error:
        raise BadInput("this lies outside the repository", where=str(path)) from error
    return _safe(_PATH, text, "a path")


def _safe(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not pattern.match(text):
        raise BadInput(
            f"{text[:80]!r} has characters that a pipeline file should not carry", where=what, fix="use plain names"
        )
    return text

"""`drupelet forge build`: convert, quantize, evaluate and pack."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import Format, Output, say, show
from drupelet.cli.progress import Bar
from drupelet.core.errors import BadInput
from drupelet.core.names import ReleaseId, Version, family
from drupelet.durable import PosixDisk
from drupelet.forge.attest.builder import builder_of
from drupelet.forge.choice import formats_for
from drupelet.forge.evaluation import Bench
from drupelet.forge.evaluation.replaced import open_replaced
from drupelet.forge.imports import open_source
from drupelet.forge.pipeline import Pipeline
from drupelet.forge.recipe import load_recipe
from drupelet.forge.report import Report
from drupelet.forge.runners.emulated import PROCESSORS, EmulatedRunner
from drupelet.forge.toolchain.venvs import cache_folder as tools_cache

RecipeFile = Annotated[Path, typer.Argument(help="The family's recipe.toml.", show_default=False)]
CheckpointFolder = Annotated[
    Path,
    typer.Option("--checkpoint", help="Folder in Hugging Face's layout, or a GGUF in f16.", show_default=False),
]
BuilderUri = Annotated[
    str,
    typer.Option(
        "--builder",
        envvar="DRUPELET_BUILDER",
        help="URI of who builds, to be signed.",
        show_default="what GitHub, GitLab or Jenkins say, else local",
    ),
]
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache", help="Where what is made once is kept: the f16 reference, its logits.", show_default="OUT/cache"
    ),
]
Replaces = Annotated[
    str,
    typer.Option(
        "--replaces",
        help="The release this one replaces, whose answers it is compared with: its package's folder, or "
        "DEPOT:FAMILY/VERSION.",
    ),
]
Emulate = Annotated[
    Path | None,
    typer.Option(
        "--emulate", help="A llama-server for aarch64, to answer the canonical prompts under qemu (correctness only)."
    ),
]
EmulateCpu = Annotated[str, typer.Option("--emulate-cpu", help=f"Processor that qemu plays: {', '.join(PROCESSORS)}.")]
Override = Annotated[
    str, typer.Option("--override-evaluation", help="Pack even what the evaluation refuses; the reason is signed.")
]
COLUMNS = ("variant", "MiB", "KL mean", "top-1", "tokens/s", "TTFT ms", "RAM MiB", "prompts", "verdict")


def build(
    recipe: RecipeFile,
    checkpoint: CheckpointFolder,
    version: Annotated[str, typer.Option("--version", help="Version of the release, such as 1.2.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the package.", show_default=False)],
    cache: CacheFolder = None,
    replaces: Replaces = "",
    emulate: Emulate = None,
    emulate_cpu: EmulateCpu = PROCESSORS[0],
    override_evaluation: Override = "",
    builder: BuilderUri = "",
    output: Output = Format.TABLE,
) -> None:
    """Convert, quantize, evaluate and pack a release. Exit code 8 if the evaluation refuses it.

    Example: drupelet forge build models/kiosk/recipe.toml --checkpoint models/kiosk/1.2 --version 1.2 --out build/1.2
    """
    known, recipe_digest = load_recipe(recipe)
    release = ReleaseId(family(known.family), Version.parse(version))
    disk = PosixDisk(folder_mode=0o755)
    cache_folder = (cache or out / "cache").absolute()
    formats = formats_for(
        known,
        recipe_folder=recipe.absolute().parent,
        tools_cache=tools_cache().absolute(),
        work=cache_folder,
        now_ms=_now_ms,
    )
    emulated = EmulatedRunner.find(emulate, processor=emulate_cpu) if emulate is not None else None
    replaced = open_replaced(replaces, disk=disk) if replaces else None
    opened = open_source(checkpoint.absolute())
    # A child's socket needs a short path, which the package's folder need not have.
    with tempfile.TemporaryDirectory(prefix="drupelet-") as runtime, Bar() as bar:
        line = Pipeline(
            release=release,
            recipe=known,
            recipe_digest=recipe_digest,
            checkpoint=opened,
            folder=out.absolute(),
            replaced=replaced,
            bench=Bench(
                disk=disk,
                cache=cache_folder,
                runtime_folder=Path(runtime),
                progress=bar.doing,
                emulated=emulated,
            ),
            now_ms=_now_ms,
            builder=builder_of(os.environ, named=builder),
            formats=formats,
            files=recipe.absolute().parent,
            progress=bar.bytes_done,
        )
        report = line.measure()
    # The numbers are shown before a refusal, not instead of it.
    show_report(report, output)
    package = line.pack(report, override=override_evaluation)
    if package.manifest.evaluation.overridden:
        say(f"The evaluation refused {release}; overridden: {package.manifest.evaluation.overridden}")
    say(f"{release} is packed in {out}, unsigned.")


def _now_ms() -> int:
    """Return Unix milliseconds; a build that is to be repeated says by `SOURCE_DATE_EPOCH` when it is."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not given:
        return time.time_ns() // 1_000_000
    if not given.isdecimal() or len(given) > 11:
        raise BadInput(f"SOURCE_DATE_EPOCH is {given[:40]!r}", fix="give seconds since 1970")
    return int(given) * 1000


def show_report(report: Report, output: Format) -> None:
    """Print what the evaluation measured, a row a variant, and its findings."""
    rows = []
    for one in report.variants:
        quality = one.quality
        rows.append(
            (
                one.name,
                f"{one.size_bytes / 2**20:.1f}",
                f"{quality.kl_mean:.5f}" if quality else "",
                f"{quality.top1_agreement:.1%}" if quality else "",
                f"{one.tokens_per_second:.0f}",
                f"{one.ttft_ms:.1f}",
                f"{one.memory_bytes / 2**20:.0f}",
                f"{sum(group.passed for group in one.groups)}/{sum(group.total for group in one.groups)}",
                "refused" if one.findings else "passed",
            )
        )
    show(report, output=output, columns=COLUMNS, rows=rows)
    for note in dict.fromkeys(
        (*report.notes, *(f"{one.name}: {note}" for one in report.variants for note in one.notes))
    ):
        say(f"not judged: {note}")
    for seen in report.emulated:
        good = sum(result.passed for result in seen.canonical)
        say(f"{seen.variant} on {seen.processor}: {good} of {len(seen.canonical)} canonical prompts (correctness only)")
    for finding in report.findings:
        say(f"refused: {finding}")

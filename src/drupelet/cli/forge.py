"""`drupelet forge`: from a checkpoint to a signed, published release."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import Format, Output, say, show
from drupelet.cli.passphrase import PassphraseFile, passphrase
from drupelet.cli.progress import Bar
from drupelet.core.names import ReleaseId, Version, family
from drupelet.depot.files import FilesDepot
from drupelet.durable import PosixDisk
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Converted, Wanted, convert
from drupelet.forge.evaluate import Bench, evaluate
from drupelet.forge.pack import pack
from drupelet.forge.publish import publish as publish_package
from drupelet.forge.recipe import Recipe, load_recipe
from drupelet.forge.report import Report
from drupelet.trust.keys import KeyRing
from drupelet.trust.publisher import ImageRepository

app = typer.Typer()

RecipeFile = Annotated[Path, typer.Argument(help="The family's recipe.toml.", show_default=False)]
CheckpointFolder = Annotated[
    Path, typer.Option("--checkpoint", help="Folder in Hugging Face's layout.", show_default=False)
]
PackageFolder = Annotated[Path, typer.Argument(help="Folder that `drupelet forge build` wrote.", show_default=False)]
COLUMNS = ("variant", "MiB", "KL mean", "top-1", "tokens/s", "TTFT ms", "RAM MiB", "prompts", "verdict")


@app.command()
def check(checkpoint: Annotated[Path, typer.Argument(help="Folder in Hugging Face's layout.")]) -> None:
    """Open a checkpoint, read every weight and say what is wrong with it, if anything is.

    Example: drupelet forge check models/kiosk/1.2
    """
    found = open_checkpoint(checkpoint.absolute())
    for tensor in found.tensors.values():
        for _ in tensor.rows():
            pass
    say(f"{len(found.tensors)} tensors, {found.parameters} weights, {found.digest}: whole and finite.")


@app.command()
def build(
    recipe: RecipeFile,
    checkpoint: CheckpointFolder,
    version: Annotated[str, typer.Option("--version", help="Version of the release, such as 1.2.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the package.", show_default=False)],
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Where the f16 reference's logits are kept.", show_default="OUT/cache"),
    ] = None,
    override_evaluation: Annotated[
        str, typer.Option("--override-evaluation", help="Pack even what the evaluation refuses; the reason is signed.")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Convert, quantize, evaluate and pack a release. Exit code 8 if the evaluation refuses it.

    Example: drupelet forge build models/kiosk/recipe.toml --checkpoint models/kiosk/1.2 --version 1.2 --out build/1.2
    """
    known, recipe_digest = load_recipe(recipe)
    release = ReleaseId(family(known.family), Version.parse(version))
    disk, folder = PosixDisk(folder_mode=0o755), out.absolute()
    opened = open_checkpoint(checkpoint.absolute())
    with Bar() as bar:
        made = convert(opened, _wanted(known), folder, model_name=str(release), disk=disk, progress=bar.bytes_done)
        reference = next(one.artifact for one in made if one.wanted.quantization == "f16")
        # A child's socket needs a short path, which the package's folder need not have.
        with tempfile.TemporaryDirectory(prefix="drupelet-") as runtime:
            bench = Bench(
                disk=disk,
                cache=(cache or out / "cache").absolute(),
                runtime_folder=Path(runtime),
                progress=bar.doing,
            )
            report = evaluate(known, _recipe_only(known, made), reference=reference, checkpoint=opened, bench=bench)
    # The numbers are shown before a refusal, not instead of it.
    _show_report(report, output)
    package = pack(
        release,
        known,
        report,
        recipe_digest=recipe_digest,
        checkpoint=opened,
        folder=folder,
        disk=disk,
        created_at_ms=time.time_ns() // 1_000_000,
        override=override_evaluation,
    )
    if package.manifest.evaluation.overridden:
        say(f"The evaluation refused {release}; overridden: {package.manifest.evaluation.overridden}")
    say(f"{release} is packed in {out}, unsigned.")


@app.command()
def publish(
    package: PackageFolder,
    depot: Annotated[Path, typer.Option("--depot", help="The depot's folder; made if it is not there.")],
    keys: Annotated[Path, typer.Option("--keys", help="The key ring's folder.")],
    passphrase_file: PassphraseFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Put a package's files into a depot and sign its manifest.

    Example: drupelet forge publish build/1.2 --depot depot --keys keys
    """
    disk, folder = PosixDisk(folder_mode=0o755), depot.absolute()
    ring = KeyRing(PosixDisk(), keys.absolute(), passphrase=passphrase(passphrase_file))
    repository = ImageRepository(disk, folder, ring, lambda: datetime.now(UTC))
    if not disk.exists(folder / "metadata" / "timestamp.json"):
        repository.create()
    target = publish_package(package.absolute(), disk=disk, depot=FilesDepot(disk, folder), repository=repository)
    value = {"path": target.path, "length": target.length, "sha256": target.sha256.hex}
    show(value, output=output, columns=("target", "bytes", "sha256"), rows=[tuple(value.values())])


def _wanted(recipe: Recipe) -> list[Wanted]:
    """Return the recipe's variants, and the f16 reference if it is none of them."""
    wanted = [variant.wanted for variant in recipe.variants]
    if all(one.quantization != "f16" for one in wanted):
        wanted.append(Wanted.reference())
    return wanted


def _recipe_only(recipe: Recipe, made: tuple[Converted, ...]) -> list[Converted]:
    names = {variant.name for variant in recipe.variants}
    return [one for one in made if str(one.wanted.name) in names]


def _show_report(report: Report, output: Format) -> None:
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
                f"{sum(result.passed for result in one.canonical)}/{len(one.canonical)}",
                "refused" if one.findings else "passed",
            )
        )
    show(report, output=output, columns=COLUMNS, rows=rows)
    for finding in report.findings:
        say(f"refused: {finding}")

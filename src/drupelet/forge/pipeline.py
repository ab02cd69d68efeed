"""One build, from a checkpoint to a package: convert, evaluate, pack, each step in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drupelet import __version__
from drupelet.core.names import Digest, ReleaseId
from drupelet.forge.adapted import evaluate_adapter, joined
from drupelet.forge.attest.bom import bill_of_materials, running_packages
from drupelet.forge.attest.builder import Builder
from drupelet.forge.attest.statement import LOCAL_BUILDER, provenance
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.convert import CONVERTER, Converted, Wanted, convert
from drupelet.forge.evaluation import Bench, evaluate
from drupelet.forge.evaluation.replaced import Replaced
from drupelet.forge.formats import FORMATS
from drupelet.forge.formats.lora import LORA, LoraFormat
from drupelet.forge.formats.port import Format, Progress
from drupelet.forge.ledger import Ledger, Step
from drupelet.forge.locks import locks
from drupelet.forge.pack import Attachments, Package, pack
from drupelet.forge.page import report_page
from drupelet.forge.recipe import Recipe
from drupelet.forge.report import Report
from drupelet.wire.manifest import ReleaseManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """What one build works on. `measure` comes first and `pack`, which refuses what `measure` found bad, second."""

    release: ReleaseId
    recipe: Recipe
    recipe_digest: Digest
    checkpoint: Checkpoint
    folder: Path
    bench: Bench
    now_ms: Callable[[], int]
    progress: Progress = lambda _doing, _done, _total: None
    formats: Mapping[str, Format] = field(default_factory=lambda: FORMATS)
    """Who writes which file format; see `choice.formats_for`."""
    replaced: Replaced | None = None
    """The release whose answers the new one's are compared with."""
    files: Path | None = None
    """The folder that the recipe's own files are relative to."""
    ledger: Ledger = field(default_factory=Ledger)
    builder: Builder = LOCAL_BUILDER
    """Who builds, for the provenance."""
    packages: Callable[[], Mapping[str, str]] = running_packages
    """The Python packages that take part, for the bill of materials."""

    def measure(self) -> Report:
        """Convert every variant and evaluate it. Raises what `convert` and `evaluate` raise."""
        # Before hours of work, not after: a recipe that contradicts a compiled file is never packed.
        files = self.files or Path.cwd()
        locks(self.recipe, {one.name: files / one.file for one in self.recipe.variants})
        began = self.now_ms()
        made = convert(
            self.checkpoint,
            self._wanted(),
            self.folder,
            model_name=str(self.release),
            disk=self.bench.disk,
            progress=self.progress,
            formats=self.formats,
            files=self.files,
        )
        self._record_conversion(made, began)
        for one in made:
            for note in one.artifact.notes:
                self.bench.progress(f"{one.wanted.name}: {note}")
        kind = self.checkpoint.quantization
        reference = next(one.artifact for one in made if one.wanted.is_reference(kind))
        shipped = {variant.name for variant in self.recipe.variants}
        began = self.now_ms()
        report = evaluate(
            self.recipe,
            [one for one in made if str(one.wanted.name) in shipped and one.wanted.file_format != LORA],
            reference=reference,
            checkpoint=self.checkpoint,
            bench=self.bench,
            replaced=self.replaced,
        )
        adapted = self._evaluate_adapters(made)
        if adapted:
            report = joined(self.recipe, report, adapted)
        self.ledger.record(
            Step(
                name="evaluate",
                tool=f"drupelet {__version__}",
                parameters={"passed": str(report.passed).lower(), "replaces": report.replaces or "nothing"},
                inputs={one.artifact.path.name: one.artifact.digest for one in made},
                began_at_ms=began,
                ended_at_ms=self.now_ms(),
            )
        )
        return report

    def _evaluate_adapters(self, made: Sequence[Converted]) -> dict[str, Report]:
        """Return the reports on variants that are adapters, by name."""
        lora = self.formats.get(LORA)
        if not isinstance(lora, LoraFormat):
            return {}
        return {
            variant.name: evaluate_adapter(
                self.recipe,
                variant,
                made,
                adapter=lora.adapters[variant.name],
                checkpoint=self.checkpoint,
                formats=self.formats,
                bench=self.bench,
                progress=self.progress,
            )
            for variant in self.recipe.variants
            if variant.file_format == LORA
        }

    def _record_conversion(self, made: Sequence[Converted], began_at_ms: int) -> None:
        """Record one step for all that Drupelet wrote itself, and the steps of other people's tools, each once."""
        taken = [one for one in made if one.wanted.file or self.checkpoint.model_file is not None]
        own = [one for one in made if not one.artifact.steps and one not in taken]
        for name, some in (("convert", own), ("import", [one for one in taken if not one.artifact.steps])):
            if not some:
                continue
            self.ledger.record(
                Step(
                    name=name,
                    tool=f"{CONVERTER} {__version__}",
                    parameters={str(one.wanted.name): one.wanted.quantization for one in some},
                    inputs={"checkpoint": self.checkpoint.digest, "recipe": self.recipe_digest},
                    outputs={one.artifact.path.name: one.artifact.digest for one in some},
                    began_at_ms=began_at_ms,
                    ended_at_ms=self.now_ms(),
                )
            )
        seen: list[Step] = []
        for step in (step for one in made for step in one.artifact.steps):
            if step not in seen:
                seen.append(step)
                self.ledger.record(step)

    def pack(self, report: Report, *, override: str = "") -> Package:
        """Write report and manifest beside the variants. Raises `EvaluationRefused`, see `pack.pack`."""
        refused = override.strip() if not report.passed else ""
        page = report_page(self.release, report, summary=self.recipe.summary, override=refused)
        converters = dict.fromkeys(step.tool for step in self.ledger.steps if step.name == "convert")
        return pack(
            self.release,
            self.recipe,
            report,
            recipe_digest=self.recipe_digest,
            checkpoint=self.checkpoint,
            folder=self.folder,
            disk=self.bench.disk,
            created_at_ms=self.now_ms(),
            override=override,
            attachments={"report-page": page},
            converter=", ".join(converters) or "imported",
            describe=self._describe,
        )

    def _describe(self, draft: ReleaseManifest) -> Attachments:
        """Return provenance and bill of materials."""
        steps = self.ledger.steps
        return {
            "provenance": provenance(draft, steps, builder=self.builder),
            "bom": bill_of_materials(
                draft,
                steps,
                card=self.recipe.card,
                architecture=self.checkpoint.architecture,
                packages=self.packages(),
            ),
        }

    def _wanted(self) -> list[Wanted]:
        """Return the recipe's variants, and the f16 reference if it is none of them."""
        wanted = [variant.wanted for variant in self.recipe.variants]
        if not any(one.is_reference(self.checkpoint.quantization) for one in wanted):
            wanted.append(Wanted.reference(self.checkpoint))
        return wanted

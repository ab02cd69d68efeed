"""Runs the `run:` steps of a GitHub workflow file on this machine, as GitHub's runner would.

Each job begins on a fresh checkout, each step is run by `bash -e` with the environment it is given, outputs and
artifacts are passed on. `uses:` steps are GitHub's own: checkout and artifacts are imitated, the others are named in
`used` and nothing is done for them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

EXPRESSION = re.compile(r"\$\{\{ ([^}]*) \}\}")


@dataclass
class Done:
    """A step that ran."""

    job: str
    name: str
    code: int
    said: str


@dataclass
class Run:
    """One run of a workflow. `context` answers expressions such as `vars.X` and `secrets.X`; nothing else does."""

    workflow: dict[str, Any]
    repository: Path
    home: Path
    context: dict[str, str]
    environment: Mapping[str, str]
    """What the runner itself has: PATH and the like."""
    done: list[Done] = field(default_factory=list)
    used: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        """Everything that was printed."""
        return "".join(step.said for step in self.done)

    @property
    def failed(self) -> list[Done]:
        """Steps that failed."""
        return [step for step in self.done if step.code]

    def all(self) -> None:
        """Run jobs in the file's order; one whose `needs` failed is left out, as on GitHub."""
        results: dict[str, bool] = {}
        for name, job in self.workflow["jobs"].items():
            needs = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
            assert set(needs) <= set(results), "the file lists jobs in an order in which they can run"
            if all(results[other] for other in needs) and self._condition(job.get("if")):
                results[name] = self._job(name, job)
            else:
                results[name] = False

    def _condition(self, text: str | None) -> bool:
        if text is None:
            return True
        match = re.fullmatch(r"startsWith\(github\.ref, '([^']*)'\)", text)
        assert match, f"this runner does not know the condition {text}"
        return self.context["github.ref"].startswith(match[1])

    def _job(self, name: str, job: dict[str, Any]) -> bool:
        work, temp = self.home / name / "work", self.home / name / "temp"
        temp.mkdir(parents=True)
        self.context["runner.temp"] = str(temp)
        good = True
        for number, step in enumerate(job["steps"]):
            if "uses" in step:
                self._use(step, work)
            elif good or step.get("if") == "always()":
                outputs = temp / f"output-{number}"
                outputs.touch()
                env = self.workflow.get("env", {}) | job.get("env", {}) | step.get("env", {})
                given = {key: self._resolve(str(value)) for key, value in env.items()}
                done = self._step(name, step, given, work=work, outputs=outputs)
                good = good and done.code == 0
                for line in outputs.read_text().splitlines():
                    key, _, value = line.partition("=")
                    self.context[f"steps.{step['id']}.outputs.{key}"] = value
        for key, value in job.get("outputs", {}).items():
            self.context[f"needs.{name}.outputs.{key}"] = self._resolve(value)
        return good

    def _step(self, job: str, step: dict[str, Any], given: Mapping[str, str], *, work: Path, outputs: Path) -> Done:
        script = outputs.with_suffix(".sh")
        script.write_text(self._resolve(step["run"]))
        env = {**self.environment, **given, "GITHUB_OUTPUT": str(outputs), "GITHUB_REF": self.context["github.ref"],
               "GITHUB_SHA": self.context.get("github.sha", ""), "GITHUB_RUN_NUMBER": "7",
               "RUNNER_TEMP": self.context["runner.temp"]}  # fmt: skip
        ran = subprocess.run(
            ["bash", "-e", str(script)], cwd=work, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
        self.done.append(Done(job, step["name"], ran.returncode, ran.stdout))
        return self.done[-1]

    def _use(self, step: dict[str, Any], work: Path) -> None:
        action = step["uses"].partition("@")[0]
        self.used.append(action)
        if action == "actions/checkout":
            subprocess.run(
                ["git", "clone", "--quiet", str(self.repository), str(work)], check=True, capture_output=True
            )
        elif action.endswith("-artifact"):
            kept = self.home / "artifacts" / step["with"]["name"]
            here = work / step["with"]["path"]
            source, target = (here, kept) if action == "actions/upload-artifact" else (kept, here)
            shutil.copytree(source, target)

    def _resolve(self, text: str) -> str:
        return EXPRESSION.sub(lambda match: self.context[match[1]], text)


def read(path: Path) -> dict[str, Any]:
    """Return a workflow file."""
    return dict(yaml.safe_load(path.read_text()))


def stub_program(folder: Path, name: str) -> Path:
    """Put a program called `name` into `folder` that succeeds and notes what it was told; return its notes."""
    notes = folder / f"{name}.log"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> "{notes}"\n')
    (folder / name).chmod(0o755)
    return notes


def with_path(environment: Mapping[str, str], *folders: Path) -> dict[str, str]:
    """Return the environment with `folders` first on the PATH."""
    return {**environment, "PATH": os.pathsep.join([*map(str, folders), environment["PATH"]])}

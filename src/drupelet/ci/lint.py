"""Checking files before anything is built from them: every mistake at its line, in words, with what to do.

Bytes in, findings out; finding the files is separate. A whole folder may be given: then only files that say what they
are (`format = "drupelet.recipe/1"`), or whose names do, are looked at.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from drupelet.ci.kinds import KINDS, NAMES, kind_of, mistakes
from drupelet.core.errors import NotFound
from drupelet.wire.places import Place, json_places, place_of, toml_places

FILE_BYTES_MAX = 1 << 20
"""As for a recipe, the largest of the kinds."""
FINDINGS_MAX = 1000
FILES_MAX = 100_000
SKIPPED = {"node_modules", "__pycache__", "site-packages"}
"""Folders with other people's files."""
_TOML_AT = re.compile(r" ?\(at (?:line (\d+), column (\d+)|end of document)\)")
_OURS = re.compile(rb'"?format"?\s*[=:]\s*["\']drupelet\.(recipe|policy|manifest)/')


class Level(Enum):
    """An error fails a pipeline; a warning is shown."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One mistake in a file; line and column from 1. `kind` is the kind of file it was taken for."""

    file: str
    line: int
    column: int
    level: Level = Level.ERROR
    kind: str = ""
    what: str
    fix: str = ""

    def text(self) -> str:
        """Return it as compilers do: `file:line:column: level: what; fix`."""
        fix = f"; {self.fix}" if self.fix else ""
        return " ".join(f"{self.file}:{self.line}:{self.column}: {self.level.value}: {self.what}{fix}".split())


def lint(paths: Iterable[Path]) -> tuple[list[Finding], int]:
    """Return the findings in all files below `paths`, ordered by file and line, and how many files were checked."""
    found: list[Finding] = []
    checked = 0
    for path, named in _files(paths):
        findings = lint_file(path, named=named)
        checked += findings is not None
        found += findings or ()
        if len(found) >= FINDINGS_MAX:
            break
    return found[:FINDINGS_MAX], checked


def lint_file(path: Path, *, named: bool) -> list[Finding] | None:
    """Return what is wrong with a file; None if it is none of ours and was not `named` by anybody."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        return [_finding(path, f"cannot be read: {error.strerror}")] if named else None
    if not named and path.name not in NAMES and not _OURS.search(data):
        return None
    if len(data) > FILE_BYTES_MAX:
        return [_finding(path, f"larger than the {FILE_BYTES_MAX} bytes allowed")]
    return lint_bytes(data, path=path)


def lint_bytes(data: bytes, *, path: Path) -> list[Finding]:
    """Return what is wrong with a file that holds `data`."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return [_finding(path, f"not UTF-8 at byte {error.start}")]
    as_json = path.suffix == ".json"
    try:
        document = json.loads(text) if as_json else tomllib.loads(text)
    except json.JSONDecodeError as error:
        return [_finding(path, f"not JSON: {error.msg}", at=Place(error.lineno, error.colno))]
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        return [_broken(path, error, text)]
    if not isinstance(document, dict):
        return [_finding(path, "a list or a value where a table is expected")]
    kind = kind_of(path.name, document)
    if kind is None:
        known = ", ".join(known.format for known in KINDS.values() if known.format)
        return [_finding(path, "it does not say what it is", fix=f"begin it with a format, one of {known}")]
    places = json_places(text) if as_json else toml_places(text)
    findings = []
    try:
        found = mistakes(kind, document, data)
    except RecursionError:
        return [_finding(path, "nested too deeply")]
    for problem in found:
        level = Level.WARNING if problem.unknown and kind.tolerant else Level.ERROR
        place = place_of(places, problem.path)
        findings.append(_finding(path, problem.what, at=place, fix=problem.fix, level=level, kind=kind.name))
    return sorted(findings, key=lambda finding: (finding.line, finding.column, finding.what))


def _broken(path: Path, error: Exception, text: str) -> Finding:
    """Return a reader's complaint at the place it names in its words."""
    said = str(error) if not isinstance(error, RecursionError) else "nested too deeply"
    match = _TOML_AT.search(said)
    last = text.count("\n") + 1
    place = Place(int(match[1]), int(match[2])) if match and match[1] else Place(last, 1) if match else None
    return _finding(path, f"not {'JSON' if path.suffix == '.json' else 'TOML'}: {_TOML_AT.sub('', said)}", at=place)


def _finding(
    path: Path, what: str, *, at: Place | None = None, fix: str = "", level: Level = Level.ERROR, kind: str = ""
) -> Finding:
    line, column = at or Place(1, 1)
    return Finding(file=str(path), line=line, column=column, level=level, kind=kind, what=what, fix=fix)


def _files(paths: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield every file to look at, and whether somebody named it."""
    seen = 0
    for path in paths:
        if not path.exists():
            raise NotFound("there is no such file or folder", where=str(path))
        if not path.is_dir():
            yield path, True
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if name[0] != "." and name not in SKIPPED)
            for name in sorted(names):
                seen += 1
                if seen > FILES_MAX:
                    return
                if name.endswith((".toml", ".json")) and (found := Path(folder, name)).is_file():
                    yield found, False


def github(finding: Finding) -> str:
    """Return a finding as a workflow command: GitHub shows it beside the line."""
    said = f"{finding.what}{'; ' + finding.fix if finding.fix else ''}"
    message = said.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    file = finding.file
    for mark, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"), (":", "%3A"), (",", "%2C")):
        file = file.replace(mark, code)
    return (
        f"::{finding.level.value} file={file},line={finding.line},col={finding.column},title=drupelet lint::{message}"
    )


def sarif(findings: Iterable[Finding], *, version: str) -> dict[str, Any]:
    """Return findings as SARIF 2.1.0, which code-scanning pages take."""
    results = [
        {
            "ruleId": finding.kind or "file",
            "level": finding.level.value,
            "message": {"text": f"{finding.what}{'; ' + finding.fix if finding.fix else ''}"},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": Path(finding.file).as_posix()},
                        "region": {"startLine": finding.line, "startColumn": finding.column},
                    }
                }
            ],
        }
        for finding in findings
    ]
    driver = {"name": "drupelet lint", "version": version, "rules": [{"id": name} for name in ("file", *KINDS)]}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }

"""Validate GGUF files: Drupelet's evaluation against the f16 reference, and the recipe's canonical prompts.

python tests/validate_model.py models/*.gguf

Each file's package is made beside it, `<file>.package`, and what the evaluation refuses ends with exit code 8. A
package holds the very file that was given: the same checkpoint converted twice gives the same bytes; it is checked.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

DRUPELET = [sys.executable, "-m", "drupelet.cli.main"]


def validate(model: Path, recipe: Path) -> int:
    """Evaluate and pack one file; return the exit code."""
    notes = json.loads(model.with_name(model.name + ".json").read_text())
    package = model.with_name(model.name + ".package")
    words = ["forge", "build", str(recipe), "--checkpoint", notes["checkpoint"], "--version", notes["version"]]
    code = subprocess.run([*DRUPELET, *words, "--out", str(package), "--cache", ".cache/forge"], check=False).returncode
    if code:
        return code
    with model.open("rb") as file:
        found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    digests = [variant["digest"] for variant in json.loads((package / "manifest.json").read_text())["variants"]]
    if found not in digests:
        print(f"validate_model: {model} is {found}, and the checkpoint converts to {digests}", file=sys.stderr)
        return 7
    return subprocess.run([*DRUPELET, "release", "lint", str(package)], check=False).returncode


def main() -> int:
    """Read the command line and validate every file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--recipe", type=Path, default=Path("recipe.toml"))
    given = parser.parse_args()
    return next((code for model in given.models if (code := validate(model, given.recipe))), 0)


if __name__ == "__main__":
    sys.exit(main())

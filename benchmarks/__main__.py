"""`make bench`: every benchmark in turn, each printing its targets beside its results.

make bench                 all of them but the forge's larger ones
make bench ARGS="gate"     those whose name contains a word
make bench-forge           the forge's, the larger ones too: each `bench_forge*.py` is a part of it
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Run the benchmarks named, all without names; the exit code says whether every target was met."""
    words = sys.argv[1:]
    missed = []
    for script in sorted(HERE.glob("bench_*.py")):
        name = script.stem.removeprefix("bench_")
        if words and not any(word in name for word in words):
            continue
        if not words and name.startswith("forge_"):
            continue  # a billion weights take minutes and gigabytes
        print(f"\n== {name} " + "=" * max(0, 90 - len(name)), flush=True)
        if subprocess.run([sys.executable, str(script)], cwd=HERE.parent, check=False).returncode:
            missed.append(name)
    print(f"\nTargets missed or failed in: {', '.join(missed) or 'none'}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()

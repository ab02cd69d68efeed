"""Make the demo's bad releases out of a good checkpoint: one that talks nonsense, and one that is right but slow.

    python demo/surgery.py scramble models/kiosk/1.2 OUT --seed 3
    python demo/surgery.py slow models/kiosk/1.2 OUT --layers 24

`scramble` shuffles the rows of every matrix in attention and feed-forward: same names, shapes and statistics, no sense.
`slow` appends layers whose two outputs are zero, so that each adds exactly nothing to what it is given: every answer
stays as it was, and costs more.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Tensors = dict[str, NDArray[np.float16]]
_MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_SILENCED = ("o_proj", "down_proj")


def scramble(source: Path, out: Path, *, seed: int) -> None:
    """Write `source` to `out` with the rows of its matrices in an order drawn from `seed`."""
    random = np.random.default_rng(seed)
    tensors = load_file(source / "model.safetensors")
    for name in sorted(tensors):
        if any(f".{kind}." in name for kind in _MATRICES):
            tensors[name] = np.ascontiguousarray(random.permutation(tensors[name], axis=0))
    _write(source, out, tensors, added_layers=0)


def add_identity_layers(source: Path, out: Path, *, layers: int) -> None:
    """Write `source` to `out` with `layers` more layers at its end that change nothing and take their time."""
    tensors = load_file(source / "model.safetensors")
    count = _config(source)["num_hidden_layers"]
    last = f"model.layers.{count - 1}."
    template = {name.removeprefix(last): value for name, value in tensors.items() if name.startswith(last)}
    for added in range(count, count + layers):
        for name, value in template.items():
            silenced = any(f"{kind}." in name for kind in _SILENCED)
            tensors[f"model.layers.{added}.{name}"] = np.zeros_like(value) if silenced else value.copy()
    _write(source, out, tensors, added_layers=layers)


def _config(folder: Path) -> dict[str, int]:
    config: dict[str, int] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def _write(source: Path, out: Path, tensors: Tensors, *, added_layers: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and path.name not in ("config.json", "model.safetensors"):
            shutil.copyfile(path, out / path.name)
    config = _config(source)
    config["num_hidden_layers"] += added_layers
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Run one operation from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, option, default in (("scramble", "--seed", 3), ("slow", "--layers", 24)):
        one = verbs.add_parser(verb)
        one.add_argument("source", type=Path)
        one.add_argument("out", type=Path)
        one.add_argument(option, type=int, default=default)
    args = parser.parse_args()
    if args.verb == "scramble":
        scramble(args.source, args.out, seed=args.seed)
    else:
        add_identity_layers(args.source, args.out, layers=args.layers)


if __name__ == "__main__":
    main()

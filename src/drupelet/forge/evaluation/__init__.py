"""Judging every variant before it may be packed: its answers, its distance from the f16 reference, its costs.

The theory in short: perplexity hardly moves under quantization, what a user notices is another token; so each variant's
distribution over the next token is compared with the reference's where the model will work. The reference's
tokens are compared with the tokenizer's own, because a converter's fault is the same in every variant.

Speeds are those of the machine the forge runs on. A budget broken here would be broken on a slower device too; one that
is kept here says nothing about a device, which holds its own trial. Medians are held to them, so that one hiccup of a
busy machine refuses nothing.
"""

from drupelet.forge.evaluation.bench import Bench
from drupelet.forge.evaluation.run import evaluate, require_pass

__all__ = ["Bench", "evaluate", "require_pass"]

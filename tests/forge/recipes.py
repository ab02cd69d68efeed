"""A recipe for the tiny checkpoint."""

from __future__ import annotations

RECIPE = b"""
format = "drupelet.recipe/1"
family = "tiny"
model = "tiny"
context_tokens = 64
[[variants]]
name = "q8_0"
quantization = "q8_0"
[[variants]]
name = "f16"
quantization = "f16"
[[canonical_prompts]]
id = "anything"
prompt = "Where is the milk?"
tokens_max = 6
expect = [{ kind = "tokens_min", value = "1" }]
[evaluation]
prompts = ["When do you open on Sunday?", "How much is the coffee?"]
texts = ["The milk is in the fridge on the left."]
answer_tokens_max = 8
[quality]
kl_mean_max = 0.05
top1_agreement_min = 0.7
"""

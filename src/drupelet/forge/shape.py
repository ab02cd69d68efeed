"""What of a model decides what it costs to run: layers, heads, context. Pure; the same for every architecture."""

from __future__ import annotations

from dataclasses import dataclass

CACHE_NUMBER_BYTES = 2
"""llama.cpp keeps keys and values in f16."""
WINDOW_EXTRA_TOKENS = 512
"""A layer with a sliding window keeps one batch more than its window (llama.cpp's n_ubatch)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder's sizes. Widths count numbers, not bytes."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    """Heads of keys and values; 0 for an architecture that keeps none."""
    key_width: int
    """Numbers in one head of keys."""
    value_width: int
    context: int
    """Tokens that it was trained to look back on."""
    vocab: int
    """Rows of its embedding."""
    window: int | None = None
    """Tokens that a layer with a sliding window looks back on."""
    window_layers: int = 0
    """How many layers have the window."""

    def cache_bytes(self, tokens: int) -> int:
        """Return the bytes of keys and values for one conversation of `tokens`."""
        a_token = self.kv_heads * (self.key_width + self.value_width) * CACHE_NUMBER_BYTES
        windowed = self.window_layers if self.window is not None else 0
        kept = min(tokens, (self.window or 0) + WINDOW_EXTRA_TOKENS)
        return a_token * ((self.layers - windowed) * tokens + windowed * kept)

"""What a cache takes follows from layers, heads and windows."""

from __future__ import annotations

from dataclasses import replace

from drupelet.forge.shape import WINDOW_EXTRA_TOKENS, ModelShape

SHAPE = ModelShape(layers=4, hidden=64, heads=4, kv_heads=2, key_width=16, value_width=8, context=8192, vocab=100)


def test_every_layer_keeps_every_token() -> None:
    assert SHAPE.cache_bytes(10) == 4 * 2 * (16 + 8) * 2 * 10
    assert replace(SHAPE, kv_heads=0).cache_bytes(10) == 0


def test_a_layer_with_a_window_keeps_its_window_and_a_batch() -> None:
    windowed = replace(SHAPE, window=1024, window_layers=3)
    assert windowed.cache_bytes(1000) == SHAPE.cache_bytes(1000)
    a_token = SHAPE.cache_bytes(1) // 4
    assert windowed.cache_bytes(8000) == a_token * (8000 + 3 * (1024 + WINDOW_EXTRA_TOKENS))

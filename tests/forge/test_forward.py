"""The second computation of a checkpoint is Hugging Face's, for every architecture that it claims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drupelet.forge.architectures import ARCHITECTURES as CONVERTED
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.evaluation.forward import ARCHITECTURES, choose, forward, why_not
from tests.fakes.golden_gguf import GOLDEN
from tests.fakes.tiny_models import TINY_MODELS, TOKENS, write_tiny_model

GOLDENS = sorted(path.stem for path in GOLDEN.glob("*.npy"))


@pytest.mark.parametrize("name", GOLDENS)
def test_it_computes_what_hugging_face_computes(name: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_tiny_model(tmp_path, name))
    if TINY_MODELS[name].architecture not in ARCHITECTURES or why_not(checkpoint) is not None:
        assert "second computation" in str(why_not(checkpoint)) or "rope scaling" in str(why_not(checkpoint))
        return
    (found,) = forward(checkpoint, [TOKENS])
    expected = np.load(GOLDEN / f"{name}.npy").astype(np.float32)
    assert np.abs(found - expected).max() < 0.002 * expected.std()


def test_what_is_claimed_can_be_converted() -> None:
    assert set(ARCHITECTURES) <= set(CONVERTED)


def test_sequences_do_not_see_each_other(tiny: Path) -> None:
    checkpoint = open_checkpoint(tiny)
    together = forward(checkpoint, [[3, 40, 50], [9, 60, 70, 80]])
    alone = [forward(checkpoint, [one])[0] for one in ([3, 40, 50], [9, 60, 70, 80])]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_longest_is_among_those_chosen() -> None:
    assert choose([[1] * 10, [1] * 200, [1] * 60, [1] * 50], positions_max=256) == [1, 3]
    assert choose([[1] * 500], positions_max=256) == [0]

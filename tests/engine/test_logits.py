"""The C functions give the same numbers as the server: the struct layouts are right for the pinned library."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drupelet.core.errors import BadInput
from drupelet.engine.child import Child
from drupelet.engine.logits import compute
from drupelet.engine.spec import ChildSpec, StartFailed
from tests.fakes.tiny_gguf import vocabulary

pytestmark = pytest.mark.parametrize("spec", ["library"], indirect=True)
SEQUENCE = [1, 262, 270, 271, 300, 301]


def _server_logprobs(spec: ChildSpec, runtime_folder: Path) -> dict[int, float]:
    """Return the server's log-probabilities of the ten likeliest tokens after `SEQUENCE`."""

    async def scenario() -> Any:
        child = await Child.start(spec, runtime_folder=runtime_folder)
        # A byte that is no whole character is answered without probabilities, so a letter is forced; the
        # probabilities are those before the bias.
        body = {"prompt": SEQUENCE, "n_predict": 1, "n_probs": 10, "temperature": 0.0, "logit_bias": [[270, 1000.0]]}
        try:
            return child.client().post("/completion", body)
        finally:
            await child.stop()

    answer = asyncio.run(scenario())
    return {top["id"]: top["logprob"] for top in answer["completion_probabilities"][0]["top_logprobs"]}


def test_logits_agree_with_the_server(spec: ChildSpec, runtime_folder: Path, tmp_path: Path) -> None:
    expected = _server_logprobs(spec, runtime_folder)
    (rows,) = compute(spec.model, [SEQUENCE], tmp_path / "logits")
    last = rows[-1].astype(np.float64)
    logprobs = last - np.log(np.exp(last - last.max()).sum()) - last.max()
    assert len(expected) == 10
    assert {token: pytest.approx(value, abs=2e-3) for token, value in expected.items()} == {
        token: float(logprobs[token]) for token in expected
    }


def test_sequences_do_not_influence_each_other(spec: ChildSpec, tmp_path: Path) -> None:
    logits = compute(spec.model, [SEQUENCE, [1, 290], SEQUENCE], tmp_path / "logits")
    first, second, third = logits
    assert (first.shape, second.shape) == ((6, logits.vocab), (2, logits.vocab))
    np.testing.assert_array_equal(first, third)
    np.testing.assert_allclose(first[0], second[0], atol=1e-4)  # both begin with the same token


@pytest.mark.parametrize("sequence", [[], [1] * 5000])
def test_a_sequence_out_of_bounds_is_refused(spec: ChildSpec, tmp_path: Path, sequence: list[int]) -> None:
    with pytest.raises(BadInput, match=f"has {len(sequence)} tokens"):
        compute(spec.model, [sequence], tmp_path / "logits")


def test_a_token_outside_the_vocabulary_is_refused(spec: ChildSpec, tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="outside the vocabulary"):
        compute(spec.model, [[1, 10**6]], tmp_path / "logits")


def test_a_truncated_model_is_refused(spec: ChildSpec, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(spec.model.read_bytes()[:100_000])
    with pytest.raises(StartFailed, match="incomplete"):
        compute(cut, [SEQUENCE], tmp_path / "logits")


def test_a_logits_file_cut_short_is_noticed(spec: ChildSpec, tmp_path: Path) -> None:
    logits = compute(spec.model, [SEQUENCE], tmp_path / "logits")
    logits.path.write_bytes(logits.path.read_bytes()[:-4])
    with pytest.raises(BadInput, match="cut short"):
        list(logits)


def test_the_vocabulary_is_the_models(spec: ChildSpec, tmp_path: Path) -> None:
    assert compute(spec.model, [[1]], tmp_path / "logits").vocab == len(vocabulary()[0])

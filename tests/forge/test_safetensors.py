"""A header that lies is found before a byte of weights is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from drupelet.forge import safetensors
from drupelet.forge.errors import CheckpointBad, Unsupported
from drupelet.forge.safetensors import parse_json, read_header

GOOD = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}


def _write(path: Path, header: Any, *, data: int = 16, length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + bytes(data))
    return path


def _entry(**changes: Any) -> dict[str, Any]:
    return {"a": GOOD["a"] | changes}


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "half": np.arange(6, dtype=np.float16).reshape(2, 3),
        "full": np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2),
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    tensors = read_header(tmp_path / "x.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"half": (2, 3), "full": (4, 2)}
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name].whole(), array.astype(np.float32))


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.0e30, 0.0], dtype=np.float32)
    raw = json.dumps({"a": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    data = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    (tmp_path / "x").write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    np.testing.assert_allclose(read_header(tmp_path / "x")["a"].whole(), values, rtol=1e-2)


@pytest.mark.parametrize(
    ("header", "options", "words"),
    [
        (GOOD, {"length": 10**6}, "its header claims 1000000 bytes"),
        (GOOD, {"length": 2**63}, "its header claims"),
        (GOOD, {"data": 15}, "the tensors end at byte"),
        (GOOD, {"data": 17}, "the tensors end at byte"),
        (_entry(shape=[3, 2]), {}, "takes 24 bytes, its offsets say 16"),
        (_entry(data_offsets=[4, 20]), {"data": 20}, "leaves a hole after the header"),
        (_entry(data_offsets=[16, 0]), {}, "its offsets say -16"),
        (_entry(data_offsets=[0, True]), {}, "no proper data_offsets"),
        (_entry(shape=[-2, -2]), {}, "no proper shape"),
        (_entry(shape=[2.0, 2]), {}, "no proper shape"),
        (_entry(shape=[1] * 9), {}, "no proper shape"),
        (GOOD | {"b": {"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 24]}}, {"data": 24}, "overlaps"),
        (GOOD | {"b": {"dtype": "F32", "shape": [1], "data_offsets": [20, 24]}}, {"data": 24}, "leaves a hole"),
        ({"a": [1]}, {}, "lacks dtype, shape or data_offsets"),
        ([1], {}, "not an object"),
        (b"{", {}, "not valid JSON"),
        (b'{"a": "\xff"}', {}, "not UTF-8"),
        (b"[" * 100_000, {}, "nested too deeply"),
        (b'{"a": 1, "a": 2}', {}, "a name occurs twice"),
    ],
)
def test_a_lie_is_told_apart(tmp_path: Path, header: Any, options: dict[str, int], words: str) -> None:
    with pytest.raises(CheckpointBad, match=words) as caught:
        read_header(_write(tmp_path / "x", header, **options))
    assert caught.value.where == str(tmp_path / "x")


def test_a_huge_header_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "HEADER_BYTES_MAX", 20)
    with pytest.raises(CheckpointBad, match="larger than 20"):
        read_header(_write(tmp_path / "x", GOOD))


def test_an_unknown_type_is_unsupported(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="unknown type 'F4'"):
        read_header(_write(tmp_path / "x", _entry(dtype="F4")))
    with pytest.raises(Unsupported, match="of type I32"):
        read_header(_write(tmp_path / "x", _entry(dtype="I32")))["a"].whole()


@pytest.mark.parametrize("content", [b"", b"\x10", b"\x00" * 8])
def test_hardly_a_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointBad):
        read_header(tmp_path / "x")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_number_that_is_none_is_found_with_its_row(tmp_path: Path, value: float, dtype: type) -> None:
    array: NDArray[Any] = np.zeros((50, 4), dtype=dtype)
    array[37, 2] = value
    save_file({"a": array}, tmp_path / "x")
    with pytest.raises(CheckpointBad, match="tensor a holds a NaN or an infinity in row 37"):
        read_header(tmp_path / "x")["a"].whole()


@pytest.mark.parametrize("multiple", [1, 8])
def test_rows_come_in_bounded_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, multiple: int) -> None:
    array = np.arange(64 * 16, dtype=np.float32).reshape(64, 16)
    save_file({"a": array}, tmp_path / "x")
    monkeypatch.setattr(safetensors, "CHUNK_BYTES", 3 * 64)
    pieces = list(read_header(tmp_path / "x")["a"].rows(multiple=multiple))
    assert {len(piece) % multiple for piece in pieces} == {0}
    assert max(len(piece) for piece in pieces) <= max(multiple, 4)
    np.testing.assert_array_equal(np.concatenate(pieces), array)


def test_a_file_cut_after_it_was_opened_is_noticed(tmp_path: Path) -> None:
    save_file({"a": np.zeros((50, 4), dtype=np.float32)}, tmp_path / "x")
    tensor = read_header(tmp_path / "x")["a"]
    data = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(data[:-10])
    with pytest.raises(CheckpointBad, match="ends inside tensor a"):
        tensor.whole()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_surprise_the_parser(data: bytes) -> None:
    try:
        value = parse_json(data, where="x")
    except CheckpointBad:
        return
    assert isinstance(value, dict)

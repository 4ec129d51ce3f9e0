"""Predictions as JSON: one object a row, cut from one buffer of lines."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

Encode: TypeAlias = Callable[
    [npt.NDArray[np.int32], npt.NDArray[np.int64], dict[str, list[Any]]], pa.Array
]


def prediction_encoder(columns: Sequence[str], name: str, version: str) -> Encode:
    """Make the function from partitions, offsets `[rows]` and plain columns to Arrow binary."""
    attributes = [f"f{i}" for i in range(len(columns))]
    prediction = msgspec.defstruct(
        "Prediction",
        [
            ("source", Any),
            *((attribute, Any) for attribute in attributes),
            ("model", str, name),
            ("model_version", str, version),
        ],
        rename=dict(zip(attributes, columns, strict=True)),
        gc=False,
    )
    encode = msgspec.json.Encoder().encode_lines

    def predictions(
        partitions: npt.NDArray[np.int32],
        offsets: npt.NDArray[np.int64],
        plain: dict[str, list[Any]],
    ) -> pa.Array:
        sources = zip(partitions.tolist(), offsets.tolist(), strict=True)
        lines = encode(list(map(prediction, sources, *(plain[column] for column in columns))))
        # msgspec escapes newlines in strings, so each one ends a line.
        ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n"))
        cuts = np.concatenate([[0], ends - np.arange(len(ends))]).astype(np.int32)
        body = lines.replace(b"\n", b"")
        return pa.Array.from_buffers(
            pa.binary(), len(ends), [None, pa.py_buffer(cuts), pa.py_buffer(body)]
        )

    return predictions


def to_plain(values: Any) -> list[Any]:
    """A column as Python values for JSON, float32 as the shortest decimal that gives it back."""
    if isinstance(values, pa.Array):
        return list(values.to_pylist())
    if not isinstance(values, np.ndarray):
        return list(values)
    if values.dtype == np.float32:
        exact = values.astype(np.float64)
        short = np.round(exact, 8)
        return list(np.where(short.astype(np.float32) == values, short, exact).tolist())
    return list(values.tolist())

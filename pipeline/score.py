"""One batch in, one answer out: decode, feed, run, assemble, encode. A pure function of the batch.

Every row of a batch ends in exactly one of accepted and rejects, whatever its bytes are and
whatever the recipe or the model raises.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.batch import Batch, Reject, Scored
from pipeline.recipe import Decoded, Recipe
from pipeline.schema import STANDARD

# Journal chunks are split at 900 kB, under the broker's usual limit of 1 MB for a record.
MAX_ROW_BYTES = 900_000


class Model(Protocol):
    """What runs: feeds by input name to outputs by name, the first axis is the batch."""

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
        """The outputs of one batch."""
        ...


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows that went through the model together. `columns` are Arrow, `plain` the same as lists."""

    accepted: npt.NDArray[np.int64]
    event_time: npt.NDArray[np.int64] | None
    columns: dict[str, pa.Array]
    plain: dict[str, list[Any]]


class Scorer:
    """Scores batches; holds what is made once: types, encoders and the functions it calls.

    `schema` is the job's, as `job_schema(recipe.fields)` makes it. `now` gives seconds since the
    epoch for `scored_at`.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Model,
        schema: pa.Schema,
        *,
        name: str,
        version: str,
        max_row_bytes: int = MAX_ROW_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._recipe = recipe
        self._model = model
        self._schema = schema
        self._name = name
        self._version = version
        self._max_row_bytes = max_row_bytes
        self._now = now
        self._encode = _prediction_encoder(recipe, name, version)

    def score(self, batch: Batch) -> Scored:
        """The answer to one batch; never raises for what a record holds."""
        started = time.perf_counter()
        rejects: list[Reject] = []
        pieces = list(self._pieces(batch.values.to_pylist(), rejects))
        accepted = np.concatenate([np.empty(0, np.int64), *(one.accepted for one in pieces)])
        rows = self._assemble(batch, accepted, pieces)
        numbers = rows.column("partition").to_numpy(), rows.column("offset").to_numpy()
        plain = {
            field.name: list(chain.from_iterable(one.plain[field.name] for one in pieces))
            for field in self._recipe.fields
        }
        predictions = self._encode(*numbers, plain)
        fits = _sizes_fit(rows, predictions, self._max_row_bytes)
        if not fits.all():
            message = (
                f"the row or its prediction is larger than {self._max_row_bytes} bytes: "
                "pass less through"
            )
            rejects += [
                Reject(int(row), "write", "RowTooLarge", message) for row in accepted[~fits]
            ]
            kept = pa.array(fits)
            rows, predictions = rows.filter(kept), predictions.filter(kept)
            accepted = accepted[fits]
        return Scored(
            batch_id=batch.id,
            rows=rows,
            predictions=predictions,
            accepted=accepted,
            rejects=tuple(sorted(rejects, key=lambda reject: reject.row)),
            seconds=time.perf_counter() - started,
        )

    def _pieces(self, values: list[bytes | None], rejects: list[Reject]) -> Iterator[_Piece]:
        """Decode and run; usually one piece, more where something raised. Appends to `rejects`."""
        for low, _, decoded in _bisect(lambda a, b: self._decode(values[a:b]), 0, len(values)):
            if isinstance(decoded, Exception):
                rejects.append(Reject(low, "decode", type(decoded).__name__, str(decoded)))
                continue
            rejects += [
                Reject(low + one.row, one.stage, one.exception, one.message)
                for one in decoded.rejects
            ]
            accepted = decoded.accepted + low
            for start, stop, columns in _bisect(
                partial(self._columns, decoded.events), 0, len(accepted)
            ):
                if isinstance(columns, Exception):
                    row = int(accepted[start])
                    failure = type(columns).__name__
                    rejects.append(Reject(row, "score", failure, str(columns)))
                    continue
                times = None if decoded.event_time is None else decoded.event_time[start:stop]
                piece = _Piece(accepted[start:stop], times, *columns)
                yield _finite(piece, self._recipe.fields, rejects)

    def _decode(self, values: list[bytes | None]) -> Decoded:
        decoded = self._recipe.decode(values)
        answered = np.concatenate(
            [decoded.accepted, np.array([one.row for one in decoded.rejects], np.int64)]
        )
        whole = np.arange(len(values))
        if len(decoded.events) != len(decoded.accepted) or not (
            np.array_equal(np.sort(answered), whole) and (np.diff(decoded.accepted) > 0).all()
        ):
            raise ValueError(
                f"decode of {len(values)} records gave {len(decoded.events)} events for "
                f"{len(decoded.accepted)} accepted and {len(decoded.rejects)} rejected rows: "
                "each row belongs to one of them, once"
            )
        return decoded

    def _columns(
        self, everything: Any, start: int, stop: int
    ) -> tuple[dict[str, pa.Array], dict[str, list[Any]]]:
        events, size = everything[start:stop], stop - start
        feeds = self._recipe.feeds(events)
        _check_lengths("input", feeds, size)
        outputs = self._model.run(feeds)
        _check_lengths("output", outputs, size)
        made = self._recipe.rows(events, outputs)
        _check_lengths("column", made, size)
        fields = self._recipe.fields
        return (
            {field.name: _to_arrow(made[field.name], field.type) for field in fields},
            {field.name: _to_plain(made[field.name]) for field in fields},
        )

    def _assemble(
        self, batch: Batch, accepted: npt.NDArray[np.int64], pieces: list[_Piece]
    ) -> pa.RecordBatch:
        size = len(accepted)
        everything = size == batch.rows
        pick = pa.array(accepted)
        spans = batch.spans
        partitions = np.repeat(
            np.array([span.partition.number for span in spans], np.int32),
            np.array([span.rows for span in spans], np.int64),
        )
        times = _event_times(batch, accepted, pieces)
        topic = spans[0].partition.topic if spans else ""
        scored_at = np.full(size, round(self._now() * 1e6), np.int64)
        standard = {
            "topic": _constant(topic, size),
            "partition": pa.array(partitions[accepted]),
            "offset": batch.offsets if everything else batch.offsets.take(pick),
            "key": batch.keys if everything else batch.keys.take(pick),
            "event_time": times,
            "scored_at": pa.array(scored_at),
            "model_name": _constant(self._name, size),
            "model_version": _constant(self._version, size),
        }
        columns = [
            value.cast(field.type) for field, value in zip(STANDARD, standard.values(), strict=True)
        ]
        for field in self._recipe.fields:
            parts = [one.columns[field.name] for one in pieces]
            columns.append(parts[0] if len(parts) == 1 else _joined(parts, field.type))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def _joined(parts: list[pa.Array], kind: pa.DataType) -> pa.Array:
    return pa.concat_arrays(parts) if parts else pa.array([], kind)


def _bisect(
    attempt: Callable[[int, int], Any], start: int, stop: int
) -> Iterator[tuple[int, int, Any]]:
    """`(start, stop, result)` of the largest halves for which `attempt` does not raise.

    Where a single row raises, its exception is the result. An empty range gives nothing.
    """
    if start == stop:
        return
    try:
        result = attempt(start, stop)
    except MemoryError:
        raise  # the machine's fault, not a record's
    except Exception as failure:  # noqa: BLE001 - a recipe is the user's code, and raises anything
        if stop - start == 1:
            yield start, stop, failure
            return
    else:
        yield start, stop, result
        return
    middle = (start + stop) // 2
    yield from _bisect(attempt, start, middle)
    yield from _bisect(attempt, middle, stop)


def _constant(value: str, size: int) -> pa.Array:
    """A dictionary array that says one word `size` times."""
    return pa.DictionaryArray.from_arrays(np.zeros(size, np.int32), [value])


def _event_times(batch: Batch, accepted: npt.NDArray[np.int64], pieces: list[_Piece]) -> pa.Array:
    """The event's own time where the recipe decodes one, else Kafka's; null where it has none."""
    parts = [one.event_time for one in pieces if one.event_time is not None]
    if parts:
        return pa.array(np.concatenate(parts))
    stamps = batch.timestamps.to_numpy(zero_copy_only=False)[accepted]
    return pa.array(stamps * 1000, mask=stamps < 0)


def _check_lengths(what: str, values: Mapping[str, Any], size: int) -> None:
    for name, value in values.items():
        if len(value) != size:
            raise ValueError(f"{what} {name!r} has {len(value)} rows, the batch has {size}")


def _to_arrow(values: Any, kind: pa.DataType) -> pa.Array:
    """A column as Arrow; `[batch, width]` becomes a list, dicts become a map."""
    if isinstance(values, pa.Array):
        return values.cast(kind)
    if isinstance(values, np.ndarray) and values.ndim == 2:
        offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
        flat = pa.array(values.reshape(-1), kind.value_type)
        return pa.ListArray.from_arrays(pa.array(offsets), flat)
    if pa.types.is_map(kind):
        values = [None if one is None else list(one.items()) for one in values]
    return pa.array(values, kind)


def _to_plain(values: Any) -> list[Any]:
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


def _finite(piece: _Piece, fields: tuple[pa.Field, ...], rejects: list[Reject]) -> _Piece:
    """The piece without rows that hold NaN or infinity, which are appended to `rejects`."""
    wrong: dict[int, tuple[str, object]] = {}
    for field in fields:
        column = piece.columns[field.name]
        for row in _nonfinite(column):
            wrong.setdefault(int(row), (field.name, column[int(row)].as_py()))
    if not wrong:
        return piece
    for row, (name, value) in wrong.items():
        message = f"output column {name!r} is not finite: {value!r:.200}"
        rejects.append(Reject(int(piece.accepted[row]), "score", "NonFinite", message))
    kept = [row for row in range(len(piece.accepted)) if row not in wrong]
    pick = pa.array(kept, pa.int64())
    return _Piece(
        accepted=piece.accepted[kept],
        event_time=None if piece.event_time is None else piece.event_time[kept],
        columns={name: column.take(pick) for name, column in piece.columns.items()},
        plain={name: [column[row] for row in kept] for name, column in piece.plain.items()},
    )


def _nonfinite(column: pa.Array) -> npt.NDArray[np.int64]:
    """The rows of a column that hold NaN or infinity, at any depth of lists and maps."""
    kind = column.type
    if pa.types.is_floating(kind):
        values = column.to_numpy(zero_copy_only=False)
        if column.null_count:
            return np.flatnonzero(~np.isfinite(values) & column.is_valid().to_numpy(False))
        return np.flatnonzero(~np.isfinite(values))
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        inner = column.values.field(1) if pa.types.is_map(kind) else column.values
        found = _nonfinite(inner)
        offsets = column.offsets.to_numpy()
        rows = np.unique(np.searchsorted(offsets, found, side="right") - 1)
        return rows[(rows >= 0) & (rows < len(column))]
    if pa.types.is_struct(kind):
        fields = [_nonfinite(column.field(i)) for i in range(kind.num_fields)]
        return np.unique(np.concatenate([np.empty(0, np.int64), *fields]))
    return np.empty(0, np.int64)


def _sizes_fit(rows: pa.RecordBatch, predictions: pa.Array, limit: int) -> npt.NDArray[np.bool_]:
    """Which rows fit, both as a prediction and as a row of Arrow."""
    lengths = np.diff(_offsets(predictions))
    if rows.nbytes <= limit:
        return lengths <= limit
    bytes_of_row = sum(_row_bytes(column) for column in rows.columns)
    return (lengths <= limit) & (bytes_of_row <= limit)


def _offsets(column: pa.Array) -> npt.NDArray[np.int64]:
    """The offsets `[rows + 1]` of a binary, string, list or map array."""
    return np.frombuffer(column.buffers()[1], np.int32)[
        column.offset : column.offset + len(column) + 1
    ].astype(np.int64)


def _row_bytes(column: pa.Array) -> npt.NDArray[np.int64]:
    """Bytes of each row of a column, its validity and offsets included."""
    kind = column.type
    size = len(column)
    if size == 0:
        return np.zeros(0, np.int64)
    if pa.types.is_struct(kind):
        fields = (_row_bytes(column.field(i)) for i in range(kind.num_fields))
        total: npt.NDArray[np.int64] = np.sum([np.ones(size, np.int64), *fields], axis=0)
        return total
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        offsets = _offsets(column)
        below = np.concatenate([[0], np.cumsum(_row_bytes(column.values))])
        sizes: npt.NDArray[np.int64] = 5 + below[offsets[1:]] - below[offsets[:-1]]
        return sizes
    if pa.types.is_binary(kind) or pa.types.is_string(kind):
        return 5 + np.diff(_offsets(column))
    width = 4 if pa.types.is_dictionary(kind) else (kind.bit_width + 7) // 8
    return np.full(size, 1 + width, np.int64)


_Encode = Callable[[npt.NDArray[np.int32], npt.NDArray[np.int64], dict[str, list[Any]]], pa.Array]


def _prediction_encoder(recipe: Recipe, name: str, version: str) -> _Encode:
    """Make the function that encodes one JSON prediction a row, cut from one buffer of lines."""
    own = [field.name for field in recipe.fields]
    attributes = [f"f{i}" for i in range(len(own))]
    prediction = msgspec.defstruct(
        "Prediction",
        [
            ("source", Any),
            *((attribute, Any) for attribute in attributes),
            ("model", str, name),
            ("model_version", str, version),
        ],
        rename=dict(zip(attributes, own, strict=True)),
        gc=False,
    )
    encode = msgspec.json.Encoder().encode_lines

    def predictions(
        partitions: npt.NDArray[np.int32],
        offsets: npt.NDArray[np.int64],
        plain: dict[str, list[Any]],
    ) -> pa.Array:
        sources = zip(partitions.tolist(), offsets.tolist(), strict=True)
        lines = encode(list(map(prediction, sources, *(plain[column] for column in own))))
        # msgspec escapes newlines in strings, so each one ends a line.
        ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n"))
        cuts = np.concatenate([[0], ends - np.arange(len(ends))]).astype(np.int32)
        body = lines.replace(b"\n", b"")
        return pa.Array.from_buffers(
            pa.binary(), len(ends), [None, pa.py_buffer(cuts), pa.py_buffer(body)]
        )

    return predictions

"""One batch in, one answer out: decode, feed, run, assemble, encode. A pure function of the batch.

Every row of a batch ends in exactly one of accepted and rejects, whatever its bytes are and
whatever the recipe or the model raises.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.batch import Batch, Reject, Scored
from pipeline.encode import prediction_encoder
from pipeline.recipe import Decoded, Recipe
from pipeline.rows import assembled, nonfinite, sizes_fit, to_arrow

# Journal chunks are split at 900 kB, under the broker's usual limit of 1 MB for a record.
MAX_ROW_BYTES = 900_000


class Model(Protocol):
    """What runs: feeds by name to outputs by name, the first axis is the batch."""

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of one batch."""
        ...


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows that went through the model together, `columns` by name."""

    accepted: npt.NDArray[np.int64]
    event_time: npt.NDArray[np.int64] | None
    columns: dict[str, pa.Array]


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
        self._encode = prediction_encoder(recipe.fields, name, version)

    def score(self, batch: Batch) -> Scored:
        """The answer to one batch; never raises for what a record holds."""
        started = time.perf_counter()
        rejects: list[Reject] = []
        pieces = list(self._pieces(batch.values, rejects))
        accepted = np.concatenate([np.empty(0, np.int64), *(one.accepted for one in pieces)])
        rows = self._rows(batch, accepted, pieces)
        predictions = self._encode(rows)
        fits = sizes_fit(rows, predictions, self._max_row_bytes)
        if not fits.all():
            problem = f"the row or its prediction is larger than {self._max_row_bytes} bytes"
            message = f"{problem}: pass less through"
            rejects += [
                Reject(row, "write", "RowTooLarge", message) for row in accepted[~fits].tolist()
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

    def _pieces(self, values: pa.Array, rejects: list[Reject]) -> Iterator[_Piece]:
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
                piece = _Piece(accepted[start:stop], times, columns)
                yield _finite(piece, self._recipe.fields, rejects)

    def _decode(self, values: pa.Array) -> Decoded:
        decoded = self._recipe.decode(values)
        if len(decoded.events) != len(decoded.accepted) or not _each_once(decoded, len(values)):
            raise ValueError(
                f"decode of {len(values)} records gave {len(decoded.events)} events for "
                f"{len(decoded.accepted)} accepted and {len(decoded.rejects)} rejected rows: "
                "each row belongs to one of them, once"
            )
        return decoded

    def _columns(self, everything: Any, start: int, stop: int) -> dict[str, pa.Array]:
        events, size = everything[start:stop], stop - start
        feeds = self._recipe.feeds(events)
        _check_lengths("input", feeds, size)
        outputs = self._model.run(feeds)
        _check_lengths("output", outputs, size)
        made = self._recipe.rows(events, outputs)
        _check_lengths("column", made, size)
        return {field.name: to_arrow(made[field.name], field.type) for field in self._recipe.fields}

    def _rows(
        self, batch: Batch, accepted: npt.NDArray[np.int64], pieces: list[_Piece]
    ) -> pa.RecordBatch:
        times = [one.event_time for one in pieces if one.event_time is not None]
        own = [
            _joined([one.columns[field.name] for one in pieces], field.type)
            for field in self._recipe.fields
        ]
        return assembled(
            batch,
            accepted,
            own,
            np.concatenate(times) if times else None,
            scored_at=round(self._now() * 1e6),
            name=self._name,
            version=self._version,
            schema=self._schema,
        )


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


def _each_once(decoded: Decoded, size: int) -> bool:
    """Whether each row is accepted or rejected, and the accepted ones ascend."""
    if not decoded.rejects:
        return np.array_equal(decoded.accepted, np.arange(size))
    rejected = np.array([one.row for one in decoded.rejects], np.int64)
    answered = np.sort(np.concatenate([decoded.accepted, rejected]))
    return np.array_equal(answered, np.arange(size)) and bool((np.diff(decoded.accepted) > 0).all())


def _joined(parts: list[pa.Array], kind: pa.DataType) -> pa.Array:
    if len(parts) == 1:
        return parts[0]
    return pa.concat_arrays(parts) if parts else pa.array([], kind)


def _check_lengths(what: str, values: Mapping[str, Any], size: int) -> None:
    for name, value in values.items():
        if len(value) != size:
            raise ValueError(f"{what} {name!r} has {len(value)} rows, the batch has {size}")


def _finite(piece: _Piece, fields: tuple[pa.Field, ...], rejects: list[Reject]) -> _Piece:
    """The piece without rows that hold NaN or infinity, which are appended to `rejects`."""
    wrong: dict[int, tuple[str, object]] = {}
    for field in fields:
        column = piece.columns[field.name]
        for row in nonfinite(column):
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
    )

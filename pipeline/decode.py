"""Values of records to columns, by format. A bad record is one reject, and its neighbours go on.

Records are never joined before they are parsed: a newline in one of them would make it two.
"""

import datetime
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.batch import Reject
from pipeline.ids import to_indices
from pipeline.json_flat import COMPILED, flat_reader, is_flat
from pipeline.json_repair import Reason, Rejected
from pipeline.json_structs import struct_reader
from pipeline.json_types import event_type, needed_fields
from pipeline.recipe import TOMBSTONE, Decode, Decoded, Decoder, Events, Needs

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MAX_MILLISECONDS = 253_402_300_799_999  # the last of the year 9999


def json_decoder(needs: Needs, compiled: bool = COMPILED) -> Decode:
    """Make the `decode` for JSON objects; raises ConfigInvalid where one field has two types.

    Both ways of reading, `compiled` or not, give the same.
    """
    event = event_type(needed_fields(needs), needs.extra_fields == "reject")
    read = (flat_reader if compiled and is_flat(needs) else struct_reader)(needs, event)

    def decode(values: pa.Array) -> Decoded:
        tombstones = {}
        if values.null_count:
            rows = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))
            tombstones = dict.fromkeys(rows.tolist(), TOMBSTONE)
        parsed = read(values)
        times, failed = None, parsed.failed
        if parsed.moments is not None:
            times, untimed = _event_times(parsed.moments)
            failed = untimed | failed
        failed = failed | tombstones
        ids = {}
        for spec in needs.ids:
            ids[spec.name], unfit = to_indices(spec, parsed.ids[spec.name])
            failed = unfit | failed
        events, rows = replace(parsed.events, ids=ids), np.arange(len(values))
        if failed:
            rows = np.delete(rows, list(failed))
            events = _taken(events, rows)
            times = None if times is None else times[rows]
        rejects = (Reject(row, "decode", *failed[row]) for row in sorted(failed))
        return Decoded(events, rows, tuple(rejects), times)

    return decode


def _taken(events: Events, rows: npt.NDArray[np.int64]) -> Events:
    columns = {
        name: [column[row] for row in rows.tolist()] for name, column in events.columns.items()
    }
    feeds = {name: feed[rows] for name, feed in events.feeds.items()}
    ids = {name: lists.take(rows) for name, lists in events.ids.items()}
    return Events(len(rows), feeds, columns, ids)


def _event_times(moments: list[Any]) -> tuple[npt.NDArray[np.int64], dict[int, Reason]]:
    """Event times in µs, and why some are invalid (those hold 0)."""
    try:
        if set(map(type, moments)) <= {int}:
            times = np.array(moments, np.int64)
            if not (np.abs(times) > _MAX_MILLISECONDS).any():
                return times * 1000, {}
    except OverflowError:
        pass  # The loop below names the one that is out of range.
    times = np.zeros(len(moments), np.int64)
    wrong = {}
    for row, moment in enumerate(moments):
        try:
            times[row] = _event_time(moment)
        except Rejected as rejected:
            wrong[row] = rejected.reason
    return times, wrong


def _event_time(value: object) -> int:
    """Milliseconds since the epoch, or ISO 8601 (UTC where it names no zone), in µs."""
    if isinstance(value, str):
        try:
            moment = datetime.datetime.fromisoformat(value)
        except ValueError as failure:
            raise Rejected("InvalidEventTime", f"the event time is invalid: {failure}") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        return (moment - _EPOCH) // datetime.timedelta(microseconds=1)
    if isinstance(value, bool) or not isinstance(value, int):
        problem = "is neither milliseconds since the epoch nor ISO 8601"
        raise Rejected("InvalidEventTime", f"the event time {value!r} {problem}")
    if abs(value) > _MAX_MILLISECONDS:
        raise Rejected("InvalidEventTime", f"the event time {value} ms is out of range")
    return value * 1000


DECODERS: dict[str, Decoder] = {"json": json_decoder}

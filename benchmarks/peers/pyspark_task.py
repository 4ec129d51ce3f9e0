"""What Spark's Python workers do; a module of its own, which each of them imports once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from benchmarks.scoring import kept_session, score

# What a micro-batch holds once it is scored: a Kafka record, and the columns of its row.
COLUMNS = ("partition", "offset", "key", "event_time", "scored_at", "id", "score", "flagged")
SCORED = (
    "value binary, partition int, offset long, key binary, event_time timestamp, "
    "scored_at timestamp, id long, score float, flagged boolean"
)


def scoring(
    topic: str, model: Path
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for `mapInArrow`, from rows of the Kafka source to rows of `SCORED`."""

    def scored(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # A worker keeps its model for the next micro-batch.
        session = kept_session(model)
        for events in batches:
            if events.num_rows == 0:
                continue
            texts, rows = score(
                session,
                topic,
                events["key"].to_pylist(),
                events["value"].to_pylist(),
                events["partition"].to_pylist(),
                events["offset"].to_pylist(),
                events["timestamp"].cast("int64").to_numpy() // 1000,
            )
            columns = [pa.array(texts, pa.binary()), *(rows[name] for name in COLUMNS)]
            yield pa.RecordBatch.from_arrays(columns, names=["value", *COLUMNS])

    return scored

"""What the tasks of `ray_data_loop` do; a module of its own, which their processes import once."""

import functools

import pyarrow as pa
from confluent_kafka import KafkaError, Message, Producer

from benchmarks.contender import Run
from benchmarks.scoring import kept_session, score

QUEUED_PREDICTIONS = 100_000
FLUSH_SECONDS = 60.0


@functools.cache
def _producer(bootstrap: str) -> Producer:
    """A task's process keeps it for the next task, as it does its model."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": QUEUED_PREDICTIONS,
        }
    )


def scored(events: pa.Table, run: Run) -> pa.Table:
    """One batch: its predictions are at the broker when its rows are returned."""
    keys = events["key"].to_pylist()
    partitions = events["partition"].to_pylist()
    texts, rows = score(
        kept_session(run.model),
        run.events,
        keys,
        events["value"].to_pylist(),
        partitions,
        events["offset"].to_pylist(),
        events["timestamp"].to_pylist(),
    )
    producer = _producer(run.bootstrap)
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    for key, partition, text in zip(keys, partitions, texts, strict=True):
        producer.produce(run.predictions, text, key, partition, on_delivery=delivered)
    if producer.flush(FLUSH_SECONDS) or failures:
        raise RuntimeError(f"predictions were not delivered: {failures[:1] or 'no answer'}")
    return pa.Table.from_batches([rows])

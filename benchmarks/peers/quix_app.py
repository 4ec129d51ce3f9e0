"""Quix Streams with exactly-once processing, in two processes of one group.

Guarantee: exactly once to Kafka, by its transactions; at least once to Parquet, whose files are
written just before the transaction that covers their rows is committed.

Its data frame applies functions record by record. Scoring in batches therefore sits in a sink,
which it flushes at each checkpoint, and that sink produces through the application's own producer,
because its transaction is the checkpoint's. That producer has no public name. Per record, as its
documentation has it, it was seen to be less than half as fast.
"""

import pyarrow as pa
from quixstreams import Application
from quixstreams.internal_producer import InternalProducer
from quixstreams.sinks.base import BatchingSink, SinkBatch

from benchmarks.contender import Run
from benchmarks.options import from_options
from benchmarks.scoring import open_session, score, write_rows

BATCH_RECORDS = 4_000
COMMIT_SECONDS = 1.0
# Uncommitted predictions wait in the producer's queue.
QUEUED_PREDICTIONS = 500_000


class ScoringSink(BatchingSink):
    """Scores what came since the last checkpoint, and writes it within that checkpoint."""

    def __init__(self, run: Run, producer: InternalProducer) -> None:
        super().__init__()
        self._run = run
        self._producer = producer
        self._session = open_session(run.model)
        self._rows: list[pa.RecordBatch] = []
        run.parquet.mkdir(parents=True)

    def write(self, batch: SinkBatch) -> None:
        """Score the records of one partition and hand the predictions to the producer."""
        produce = self._producer.produce
        for items in batch.iter_chunks(BATCH_RECORDS):
            keys = [item.key for item in items]
            texts, rows = score(
                self._session,
                batch.topic,
                keys,
                [item.value for item in items],
                [batch.partition] * len(keys),
                [item.offset for item in items],
                [item.timestamp for item in items],
            )
            for key, text in zip(keys, texts, strict=True):
                produce(self._run.predictions, text, key, partition=batch.partition)
            self._rows.append(rows)

    def flush(self) -> None:
        """Score all partitions, then write one file; called before each commit."""
        super().flush()
        if self._rows:
            write_rows(self._rows, self._run.parquet)
            self._rows = []


def main() -> None:
    """Score until SIGTERM."""
    run = from_options(main.__doc__)
    application = Application(
        broker_address=run.bootstrap,
        consumer_group=run.name,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=COMMIT_SECONDS,
        consumer_extra_config={"fetch.queue.backoff.ms": 10},
        producer_extra_config={
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": QUEUED_PREDICTIONS,
        },
        auto_create_topics=False,
        use_changelog_topics=False,
        state_dir=run.scratch / "state",
        loglevel="WARNING",
    )
    events = application.topic(run.events, key_deserializer="bytes", value_deserializer="bytes")
    producer = application._producer  # noqa: SLF001
    application.dataframe(events).sink(ScoringSink(run, producer))
    application.run()


if __name__ == "__main__":
    main()

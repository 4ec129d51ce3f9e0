"""Bytewax in two processes, as its documentation scales a flow out.

Guarantee: at least once, to Kafka and to Parquet. Sources resume from the snapshot of the last
epoch; a Parquet file is closed before the snapshot that covers its rows. What was written after
that snapshot is written again after a crash.

Left out: transactions, which its Kafka sink does not know, and the same partition number for a
prediction as for its event: the sink leaves that to the key.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from bytewax import operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.recovery import init_db_dir

from benchmarks.contender import Run
from benchmarks.options import from_options
from benchmarks.peers.together import together
from benchmarks.scoring import open_session, score, write_rows
from jobs.broker_process import free_ports

PROCESSES = 2
BATCH_RECORDS = 1_000
SNAPSHOT_SECONDS = 1
PATHS = ("parquet", "scratch", "model")


class ParquetFile(StatefulSinkPartition[pa.RecordBatch, None]):
    """One process's files, one for each epoch that has rows."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._waiting: list[pa.RecordBatch] = []

    def write_batch(self, values: list[pa.RecordBatch]) -> None:
        """Keep the rows until the epoch ends."""
        self._waiting.extend(values)

    def snapshot(self) -> None:
        """Write what the epoch has brought; a crash before this brings it again."""
        self._write()

    def close(self) -> None:
        """Write the rest of a finite input."""
        self._write()

    def _write(self) -> None:
        if self._waiting:
            write_rows(self._waiting, self._folder)
            self._waiting = []


class ParquetSink(FixedPartitionedSink[pa.RecordBatch, None]):
    """One partition a process, so that rows never travel between processes."""

    def __init__(self, folder: Path, process: int) -> None:
        self._folder = folder
        self._process = process

    def list_parts(self) -> list[str]:
        """The one of this process."""
        return [str(self._process)]

    def part_fn(self, item_key: str) -> int:
        """The key is the partition."""
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> ParquetFile:  # noqa: ARG002
        """Start with no rows: those after the last snapshot come again."""
        return ParquetFile(self._folder / for_part)


def flow(text: str, process: int) -> Dataflow:
    """The flow of one of the processes; `text` is the run as JSON."""
    fields = json.loads(text)
    run = Run(**{**fields, **{name: Path(fields[name]) for name in PATHS}})
    session = open_session(run.model)

    def scored(messages: list[KafkaSourceMessage[Any, Any]]) -> list[Any]:
        keys = [message.key for message in messages]
        texts, rows = score(
            session,
            run.events,
            keys,
            [message.value for message in messages],
            [message.partition for message in messages],
            [message.offset for message in messages],
            [message.timestamp[1] for message in messages],
        )
        return [(keys, texts, rows)]

    def to_messages(batches: list[Any]) -> list[KafkaSinkMessage[Any, Any]]:
        return [
            KafkaSinkMessage(key, text)
            for keys, texts, _ in batches
            for key, text in zip(keys, texts, strict=True)
        ]

    brokers = run.bootstrap.split(",")
    made = Dataflow("scoring")
    source = KafkaSource(
        brokers,
        [run.events],
        tail=run.records is None,
        batch_size=BATCH_RECORDS,
        add_config={"fetch.queue.backoff.ms": "10"},
    )
    batches = op.flat_map_batch("score", op.input("events", made, source), scored)
    sink = KafkaSink(brokers, run.predictions, {"compression.type": "lz4", "linger.ms": "5"})
    op.output("predictions", op.flat_map_batch("messages", batches, to_messages), sink)
    rows = op.map("rows", batches, lambda batch: (str(process), batch[2]))
    op.output("parquet", rows, ParquetSink(run.parquet, process))
    return made


def main() -> int:
    """Run all processes to the end of the topic, or until SIGTERM where no number is given."""
    run = from_options(main.__doc__)
    recovery = run.scratch / "recovery"
    recovery.mkdir()
    init_db_dir(recovery, PROCESSES)
    addresses = ";".join(f"127.0.0.1:{port}" for port in free_ports(PROCESSES))
    text = json.dumps(asdict(run), default=str)
    return together(
        [
            [
                *(sys.executable, "-m", "bytewax.run", f"{__spec__.name}:flow({text!r}, {number})"),
                *("-i", str(number), "-a", addresses),
                *("-r", str(recovery), "-s", str(SNAPSHOT_SECONDS), "-b", "0"),
            ]
            for number in range(PROCESSES)
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

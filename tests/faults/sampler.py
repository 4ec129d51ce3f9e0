"""A reader that looks at the outputs while faults happen, and holds them against the end.

It is what a user of the job is: it reads predictions `read_committed`, and every Parquet file that
it finds. Whatever it has seen must still be there at the end, unchanged.
"""

import contextlib
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

POLL_MS = 200
PAUSE_SECONDS = 0.2


class Sampler:
    """Reads in a thread from `start` to `stop`; then `violations` compares."""

    def __init__(self, bootstrap: str, topics: tuple[str, ...], folder: Path) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        self._folder = folder
        # (topic, partition, offset) -> the value's hash: a few dozen bytes a record of one round.
        self.seen: dict[tuple[str, int, int], int] = {}
        self.files: dict[Path, pa.Table] = {}
        self.failures: list[str] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._ending.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ending.is_set():
            # A broker that is down is no violation: it goes on where it stood.
            with contextlib.suppress(KafkaError, OSError):
                self._read()
            time.sleep(PAUSE_SECONDS)

    def _read(self) -> None:
        with contextlib.closing(
            KafkaConsumer(
                bootstrap_servers=self._bootstrap,
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
            )
        ) as consumer:
            places = [
                TopicPartition(topic, number)
                for topic in self._topics
                for number in consumer.partitions_for_topic(topic) or ()
            ]
            consumer.assign(places)
            for place in places:
                known = [o for t, n, o in self.seen if (t, n) == (place.topic, place.partition)]
                consumer.seek(place, max(known, default=-1) + 1)
            while not self._ending.is_set():
                for place, records in consumer.poll(timeout_ms=POLL_MS).items():
                    for record in records:
                        key = (place.topic, place.partition, record.offset)
                        self.seen[key] = hash(record.value)
                self._look()

    def _look(self) -> None:
        for path in sorted(self._folder.glob("date=*/*.parquet")):
            if path not in self.files:
                try:
                    self.files[path] = _rows(path)
                except (pa.ArrowException, OSError) as problem:
                    self.failures.append(f"a visible file is torn: {path.name}: {problem}")

    def violations(self, final: dict[tuple[str, int, int], int]) -> list[str]:
        """What was seen and is not so in the end; `final` are all committed records."""
        found = list(self.failures)
        for place, value in self.seen.items():
            if place not in final:
                found.append(f"seen and taken back, or never committed: {place}")
            elif final[place] != value:
                found.append(f"seen and changed: {place}")
        for path, table in self.files.items():
            if not path.exists():
                found.append(f"a file was seen and taken back: {path.name}")
            elif not _rows(path).equals(table):
                found.append(f"a file was seen and changed: {path.name}")
        return found


def _rows(path: Path) -> pa.Table:
    return pq.ParquetFile(path).read()

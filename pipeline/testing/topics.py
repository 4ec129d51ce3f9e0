"""Topics in memory, and what a reader of committed records sees of them."""

import zlib

from pipeline.batch import Partition
from pipeline.errors import ClusterUnfit
from pipeline.testing.forms import Line, Record, readable


class MemoryTopics:
    """Partitions of topics; only `MemoryLog`, which is made on top of it, writes to them."""

    def __init__(self) -> None:
        self._topics: dict[str, list[Line]] = {}

    def create(self, topic: str, partitions: int) -> tuple[Partition, ...]:
        """Create the topic, or grow it to as many partitions."""
        lines = self._topics.setdefault(topic, [])
        lines.extend(Line() for _ in range(partitions - len(lines)))
        return tuple(Partition(topic, number) for number in range(partitions))

    def _line(self, partition: Partition) -> Line:
        lines = self._topics.get(partition.topic, [])
        if not 0 <= partition.number < len(lines):
            raise ClusterUnfit(f"{partition}: the log has no such partition")
        return lines[partition.number]

    def truncate(self, partition: Partition, start: int) -> None:
        """Remove what lies below `start`, as retention does."""
        self._line(partition).start = start

    def start(self, partition: Partition) -> int:
        """The first offset that is still there."""
        return self._line(partition).start

    def stable_end(self, partition: Partition) -> int:
        """The last stable offset: no transaction that may still be aborted lies below it."""
        line = self._line(partition)
        return min([len(line.records), *line.open.values()])

    def read(self, partition: Partition, position: int, limit: int) -> tuple[list[Record], int]:
        """At most `limit` stable records from `position` on, and the position after them.

        Raises ClusterUnfit where the position is out of range.
        """
        line = self._line(partition)
        end = self.stable_end(partition)
        if not line.start <= position <= len(line.records):
            raise ClusterUnfit(
                f"{partition}: offset {position} is out of the log's range "
                f"{line.start} to {len(line.records)}"
            )
        found: list[Record] = []
        while position < end and len(found) < limit:
            record, transaction = line.records[position]
            if record is not None and (transaction is None or transaction.committed):
                found.append(record)
            position += 1
        while position < end and not readable(line, position):
            position += 1
        return found, position

    def records(self, topic: str, number: int) -> list[Record]:
        """Every stable record of one partition."""
        partition = Partition(topic, number)
        return self.read(partition, self.start(partition), 1 << 40)[0]

    def place(self, topic: str, key: bytes | None) -> Partition:
        """The partition of a key: always the same for one number of partitions."""
        count = len(self._topics.get(topic, ()))
        return Partition(topic, zlib.crc32(key or b"") % max(count, 1))

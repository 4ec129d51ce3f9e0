"""A log in memory by Kafka's rules: transactions, fencing, markers that take offsets, retention.

The rules are those of KIP-98 as Apache Kafka applies them with the first version of the
transaction protocol; group offsets and their metadata follow the broker's defaults.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from pipeline.batch import Headers, Partition
from pipeline.errors import ClusterUnfit, Fenced, OutcomeUnknown, Retriable
from pipeline.layout import Stored
from pipeline.testing.forms import (
    MAX_RECORD_BYTES,
    Line,
    Owner,
    Record,
    Transaction,
    check_metadata,
    no_hook,
    readable,
)

T = TypeVar("T")


class MemoryLog:
    """Topics, group offsets and transactional ids: the whole of a broker that outlives its clients.

    `hook` is called with the name of each effect "before" and "after" it is applied; a simulation
    raises there to crash the caller.
    """

    def __init__(
        self,
        now: Callable[[], float] = lambda: 0.0,
        hook: Callable[[str, str], None] = no_hook,
    ) -> None:
        self._now = now
        self._hook = hook
        self._topics: dict[str, list[Line]] = {}
        self._owners: dict[str, Owner] = {}
        self._offsets: dict[tuple[str, Partition], Stored] = {}

    def _effect(self, name: str, apply: Callable[[], T]) -> T:
        self._hook(name, "before")
        result = apply()
        self._hook(name, "after")
        return result

    # -- topics ----------------------------------------------------------------------------------

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

    # -- producing -------------------------------------------------------------------------------

    def place(self, topic: str, key: bytes | None) -> Partition:
        """The partition of a key: always the same for one number of partitions."""
        count = len(self._topics.get(topic, ()))
        return Partition(topic, zlib.crc32(key or b"") % max(count, 1))

    def append(
        self,
        partition: Partition,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = None,
        *,
        timestamp: int | None = None,
        transaction: Transaction | None = None,
    ) -> int:
        """Append one record and return its offset. Raises ClusterUnfit, Fenced."""
        line = self._line(partition)
        size = len(key or b"") + len(value or b"")
        if size > MAX_RECORD_BYTES:
            raise ClusterUnfit(f"{partition}: a record of {size} bytes is too large for the topic")
        if transaction is not None:
            self._check(transaction)
        stamp = round(self._now() * 1000) if timestamp is None else timestamp

        def apply() -> int:
            offset = len(line.records)
            if transaction is not None:
                transaction.touched.add(partition)
                line.open.setdefault(transaction, offset)
            line.records.append((Record(offset, stamp, key, value, headers), transaction))
            return offset

        return self._effect("append", apply)

    def feed(self, partition: Partition, values: Iterable[bytes | None]) -> None:
        """Append values as a producer without transactions would."""
        for value in values:
            self.append(partition, None, value)

    # -- transactions ----------------------------------------------------------------------------

    def init(self, transactional_id: str) -> int:
        """Become the id's owner: fence the one before, abort what it left, return the epoch."""

        def apply() -> int:
            owner = self._owners.setdefault(transactional_id, Owner())
            owner.epoch += 1
            if owner.open is not None:
                self._end(owner.open, committed=False)
            return owner.epoch

        return self._effect("init", apply)

    def begin(self, transactional_id: str, epoch: int) -> Transaction:
        """Begin a transaction. It is the client's alone until it sends something."""
        return Transaction(transactional_id, epoch)

    def _check(self, transaction: Transaction) -> None:
        owner = self._owners[transaction.transactional_id]
        if transaction.epoch != owner.epoch:
            raise Fenced(
                f"{transaction.transactional_id}: epoch {transaction.epoch} is fenced by "
                f"{owner.epoch}"
            )
        if transaction.committed is not None or owner.open not in {None, transaction}:
            raise OutcomeUnknown(f"{transaction.transactional_id}: not the open transaction")
        owner.open = transaction

    def send_offsets(
        self, transaction: Transaction, group: str, offsets: Mapping[Partition, Stored]
    ) -> None:
        """Commit the group's offsets with the transaction; until then they are unstable."""
        self._check(transaction)
        check_metadata(offsets)

        def apply() -> None:
            transaction.offsets.update({(group, p): item for p, item in offsets.items()})

        self._effect("send_offsets", apply)

    def commit(self, transaction: Transaction) -> None:
        """Make it visible, all of it at once. Raises Fenced."""
        self._check(transaction)
        self._effect("commit", lambda: self._end(transaction, committed=True))

    def abort(self, transaction: Transaction) -> None:
        """Make it as if it had not been, but for the offsets that it took."""
        self._check(transaction)
        self._effect("abort", lambda: self._end(transaction, committed=False))

    def _end(self, transaction: Transaction, *, committed: bool) -> None:
        transaction.committed = committed
        self._owners[transaction.transactional_id].open = None
        for partition in transaction.touched:
            line = self._line(partition)
            del line.open[transaction]
            line.records.append((None, transaction))
        if committed:
            self._offsets.update(transaction.offsets)

    # -- group offsets ---------------------------------------------------------------------------

    def committed(self, group: str, partitions: Iterable[Partition]) -> dict[Partition, Stored]:
        """The group's stable offsets. Raises Retriable while a transaction holds one open."""
        asked = tuple(partitions)
        for name, owner in self._owners.items():
            if owner.open and any((group, p) in owner.open.offsets for p in asked):
                raise Retriable(f"group {group}: {name} holds a transaction open on its offsets")
        found = ((p, self._offsets.get((group, p))) for p in asked)
        return {partition: item for partition, item in found if item is not None}

    def commit_offsets(self, group: str, offsets: Mapping[Partition, Stored]) -> None:
        """Commit offsets outside of any transaction."""
        check_metadata(offsets)

        def apply() -> None:
            self._offsets.update({(group, p): item for p, item in offsets.items()})

        self._effect("commit_offsets", apply)

    def expire(self, group: str, partition: Partition) -> None:
        """Forget one offset, as the broker does days after its last commit."""
        self._offsets.pop((group, partition), None)

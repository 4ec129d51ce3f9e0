"""A log in memory by Kafka's rules: transactions, fencing, markers that take offsets, retention.

The rules are those of KIP-98 as Apache Kafka applies them with the first version of the
transaction protocol; group offsets and their metadata follow the broker's defaults.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

from pipeline.batch import Headers, Partition
from pipeline.errors import ClusterUnfit, Fenced, OutcomeUnknown, Retriable
from pipeline.layout import Stored
from pipeline.testing.forms import (
    MAX_RECORD_BYTES,
    Line,
    Owner,
    Record,
    Settling,
    Transaction,
    check_metadata,
    no_hook,
)
from pipeline.testing.topics import MemoryTopics

T = TypeVar("T")


class MemoryLog(MemoryTopics):
    """Topics, group offsets and transactional ids: the whole of a broker that outlives its clients.

    `hook` is called with the name of each effect "before" and "after" it is applied; a simulation
    raises there to fail or crash the caller, or lets others go first. A transaction ends when its
    coordinator decides so; markers and offsets follow, one `settle` at a time where `settle_later`.
    """

    def __init__(
        self,
        now: Callable[[], float] = lambda: 0.0,
        hook: Callable[[str, str], None] = no_hook,
        *,
        settle_later: bool = False,
    ) -> None:
        super().__init__()
        self._now = now
        self._hook = hook
        self._settle_later = settle_later
        # Bounded by its owners: each has at most one ended transaction with markers to come.
        self._settling: deque[Settling] = deque()
        self._owners: dict[str, Owner] = {}
        self._offsets: dict[tuple[str, Partition], Stored] = {}

    def _effect(self, name: str, apply: Callable[[], T]) -> T:
        self._hook(name, "before")
        result = apply()
        self._hook(name, "after")
        return result

    # -- producing -------------------------------------------------------------------------------

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

        def apply() -> int:
            if transaction is not None:
                self._enter(transaction)
            stamp = round(self._now() * 1000) if timestamp is None else timestamp
            offset = len(line.records)
            if transaction is not None:
                transaction.touched[partition] = None
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
        """Become the id's owner: fence the one before, abort what it left, return the epoch.

        Waits for its markers, as the broker does. Offsets may follow later: until Kafka 4 groups
        take them in by a thread of their own.
        """

        def apply() -> int:
            owner = self._owners.setdefault(transactional_id, Owner())
            owner.epoch += 1
            if owner.open is not None:
                self._end(owner.open, committed=False)
            self._settle_markers(transactional_id)
            return owner.epoch

        return self._effect("init", apply)

    def begin(self, transactional_id: str, epoch: int) -> Transaction:
        """Begin a transaction. It is the client's alone until it sends something."""
        return Transaction(transactional_id, epoch)

    def _owner(self, transaction: Transaction) -> Owner:
        owner = self._owners[transaction.transactional_id]
        if transaction.epoch != owner.epoch:
            raise Fenced(
                f"{transaction.transactional_id}: epoch {transaction.epoch} is fenced by "
                f"{owner.epoch}"
            )
        return owner

    def _enter(self, transaction: Transaction) -> None:
        """Let something into the transaction, which its first part opens. Raises Fenced."""
        owner = self._owner(transaction)
        if transaction.committed is not None or owner.open not in {None, transaction}:
            raise OutcomeUnknown(f"{transaction.transactional_id}: not the open transaction")
        if owner.open is None:
            self._settle_markers(transaction.transactional_id)
        owner.open = transaction

    def send_offsets(
        self, transaction: Transaction, group: str, offsets: Mapping[Partition, Stored]
    ) -> None:
        """Commit the group's offsets with the transaction; until then they are unstable."""
        check_metadata(offsets)

        def apply() -> None:
            self._enter(transaction)
            transaction.offsets.update({(group, p): item for p, item in offsets.items()})

        self._effect("send_offsets", apply)

    def commit(self, transaction: Transaction) -> None:
        """Make it visible, all of it; asking again after it was committed succeeds. Raises Fenced.

        It is one EndTxn request: see `end`.
        """

        def apply() -> None:
            self._owner(transaction)
            if transaction.committed is False:
                raise OutcomeUnknown(f"{transaction.transactional_id}: it was aborted")
            if transaction.committed is None:
                self.end(transaction.transactional_id, transaction.epoch)

        self._effect("commit", apply)

    def end(self, transactional_id: str, epoch: int) -> None:
        """An EndTxn that commits, whenever it arrives: it names no transaction, only an epoch.

        So one that comes late ends the next transaction of its epoch, however little of it is
        there: the first version of the protocol cannot tell the two apart.
        """
        owner = self._owners[transactional_id]
        if owner.epoch == epoch and owner.open is not None:
            self._end(owner.open, committed=True)

    def abort(self, transaction: Transaction) -> None:
        """Make it as if it had not been, but for the offsets that it took."""

        def apply() -> None:
            self._enter(transaction)
            self._end(transaction, committed=False)

        self._effect("abort", apply)

    def time_out(self, transactional_id: str) -> None:
        """Abort what the id has open and fence its owner, as at `transaction.timeout.ms`."""
        owner = self._owners[transactional_id]
        if owner.open is not None:
            owner.epoch += 1
            self._end(owner.open, committed=False)

    def _end(self, transaction: Transaction, *, committed: bool) -> None:
        transaction.committed = committed
        self._owners[transaction.transactional_id].open = None

        def mark(line: Line) -> None:
            del line.open[transaction]
            line.records.append((None, transaction))

        def commit_offsets() -> None:
            self._offsets.update(transaction.offsets)

        steps = [
            Settling(transaction, of_offsets=False, apply=partial(mark, self._line(partition)))
            for partition in transaction.touched
        ]
        if committed and transaction.offsets:
            steps.append(Settling(transaction, of_offsets=True, apply=commit_offsets))
        self._settling.extend(steps)
        if not self._settle_later:
            while self.settle():
                pass

    def settle(self) -> bool:
        """Take the next step of what has ended; False where none is left."""
        if not self._settling:
            return False
        self._settling.popleft().apply()
        return True

    def _settle_markers(self, transactional_id: str) -> None:
        waiting, self._settling = self._settling, deque()
        for step in waiting:
            if step.transaction.transactional_id == transactional_id and not step.of_offsets:
                step.apply()
            else:
                self._settling.append(step)

    # -- group offsets ---------------------------------------------------------------------------

    def committed(self, group: str, partitions: Iterable[Partition]) -> dict[Partition, Stored]:
        """The group's stable offsets. Raises Retriable while a transaction holds one open."""
        asked = tuple(partitions)

        def apply() -> dict[Partition, Stored]:
            pending = [owner.open for owner in self._owners.values() if owner.open is not None]
            pending += [step.transaction for step in self._settling if step.of_offsets]
            for transaction in pending:
                if any((group, p) in transaction.offsets for p in asked):
                    holder = transaction.transactional_id
                    raise Retriable(f"group {group}: {holder} holds a transaction on its offsets")
            return self.latest(group, asked)

        return self._effect("committed", apply)

    def latest(self, group: str, partitions: Iterable[Partition]) -> dict[Partition, Stored]:
        """The group's offsets, whatever transaction is about to change them."""
        found = ((p, self._offsets.get((group, p))) for p in partitions)
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

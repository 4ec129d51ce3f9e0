"""What a `MemoryLog` is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.batch import Headers, Partition
from pipeline.errors import Retriable
from pipeline.layout import Stored

# librdkafka's `message.max.bytes`, and the broker's `offset.metadata.max.bytes`.
MAX_RECORD_BYTES = 1_000_000
MAX_METADATA_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it stands in the log; its timestamp is in ms since the epoch."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(slots=True, eq=False)
class Transaction:
    """One transaction: `committed` is None while it is open."""

    transactional_id: str
    epoch: int
    committed: bool | None = None
    # In the order in which they were touched, so that a simulation can be played again.
    touched: dict[Partition, None] = field(default_factory=dict)
    offsets: dict[tuple[str, Partition], Stored] = field(default_factory=dict)


@dataclass(slots=True)
class Owner:
    """Who holds a transactional id, and its open transaction."""

    epoch: int = -1
    open: Transaction | None = None


@dataclass(frozen=True, slots=True)
class Settling:
    """One step of an ended transaction that the broker has still to take."""

    transaction: Transaction
    of_offsets: bool
    apply: Callable[[], None]


@dataclass(slots=True)
class Line:
    """One partition. `records[i]` has offset i, and is None where it is a marker."""

    start: int = 0
    records: list[tuple[Record | None, Transaction | None]] = field(default_factory=list)
    # First offset of each open transaction.
    open: dict[Transaction, int] = field(default_factory=dict)


def no_hook(_effect: str, _moment: str) -> None:
    """Let every effect happen."""


def no_wait(_seconds: float) -> None:
    """Where there is nothing, time stands still."""


def readable(line: Line, position: int) -> bool:
    """Whether a reader of committed records sees what stands there."""
    record, transaction = line.records[position]
    return record is not None and (transaction is None or transaction.committed is True)


def check_metadata(offsets: Mapping[Partition, Stored]) -> None:
    """Raise Retriable where the broker would not keep it."""
    for partition, item in offsets.items():
        if len(item.metadata.encode()) > MAX_METADATA_BYTES:
            raise Retriable(f"{partition}: OFFSET_METADATA_TOO_LARGE")

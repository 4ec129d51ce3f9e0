"""Time, files and the background of a commit, each owned by the test."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.errors import ClusterUnfit
from pipeline.ports import Unreadable
from pipeline.testing.forms import no_hook, no_wait

T = TypeVar("T")

READ_ROWS = 4


class ManualClock:
    """A clock that stands until it is moved; `epoch` is the world's time at its 0 s."""

    def __init__(self, epoch: float = 1_700_000_000.0) -> None:
        self._epoch = epoch
        self._now = 0.0

    def monotonic(self) -> float:
        """Seconds since the start."""
        return self._now

    def time(self) -> float:
        """Seconds since the epoch."""
        return self._epoch + self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        assert seconds >= 0, "time never goes back"
        self._now += seconds

    def sleep(self, seconds: float) -> None:
        """Sleeping lets time pass, and nothing else happens meanwhile."""
        self.advance(seconds)


def inline(call: Callable[[], T]) -> Future[T]:
    """A background that does the work at once; its error waits in the future, as it would."""
    future: Future[T] = Future()
    _run(future, call)
    return future


def _run(future: Future[T], call: Callable[[], T]) -> None:
    try:
        value = call()
    except Exception as problem:  # noqa: BLE001 - an executor keeps whatever was raised
        future.set_exception(problem)
    else:
        future.set_result(value)


class _Later(Future[T]):
    """A future for which nobody waits in real time."""

    def __init__(self, wait: Callable[[float], None]) -> None:
        super().__init__()
        self._wait = wait

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error if the work is done; else the time passes and it is not."""
        if not self.done():
            assert timeout is not None, "waits for ever: nobody does the work"
            self._wait(timeout)
            raise TimeoutError
        return super().exception(0)


class ManualBackground:
    """A background that works when told to. Holds the one commit that a feeder may have out."""

    def __init__(self, wait: Callable[[float], None] = no_wait) -> None:
        self._wait = wait
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def __call__(self, call: Callable[[], T]) -> Future[T]:
        """Take the work in."""
        assert not self._waiting, "a feeder has at most one commit out"
        future: Future[T] = _Later(self._wait)
        self._waiting.append((future, call))
        return future

    @property
    def busy(self) -> bool:
        """Whether work waits."""
        return bool(self._waiting)

    def finish(self) -> None:
        """Do what waits."""
        while self._waiting:
            _run(*self._waiting.popleft())


@dataclass(slots=True)
class _Attempt:
    store: "MemoryFiles"
    name: str
    schema: pa.Schema
    groups: list[pa.Table] = field(default_factory=list)
    ended: bool = False

    def write(self, table: pa.Table) -> None:
        """Append one row group; its schema is the file's, as Parquet's writer asks."""
        assert not self.ended, "written after its end"
        if not table.schema.equals(self.schema):
            raise ValueError(f"{self.name}: the table's schema is not the file's")
        self.store.write(self.name, self.groups, table)

    def publish(self) -> None:
        """Make it visible, whole."""
        assert not self.ended, "published after its end"
        self.store.publish(self.name, pa.concat_tables([self.schema.empty_table(), *self.groups]))
        self.ended = True
        self.store.attempts -= 1

    def abandon(self) -> None:
        """Remove what was written."""
        if not self.ended:
            self.ended = True
            self.store.attempts -= 1


class MemoryFiles:
    """Visible files by name. `attempts` counts those in the making; `full` refuses every write.

    Files whose names are in `torn` cannot be read.
    """

    def __init__(self, hook: Callable[[str, str], None] = no_hook) -> None:
        self._hook = hook
        self.visible: dict[str, pa.Table] = {}
        self.published: list[str] = []
        self.attempts = 0
        self.full = False
        self.torn: set[str] = set()

    def names(self) -> list[str]:
        """What a reader sees."""
        return sorted(self.visible)

    def rows(self, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows, a few at a time."""
        if name in self.torn:
            raise Unreadable(f"{name} is torn")
        table = self.visible[name]
        for low in range(0, table.num_rows, READ_ROWS):
            part = table.slice(low, READ_ROWS)
            yield part if columns is None else part.select(list(columns))

    def refuse(self, name: str) -> None:
        """Raise ClusterUnfit where the disk is full."""
        if self.full:
            raise ClusterUnfit(f"output.parquet: {name} cannot be written (no space left)")

    def write(self, name: str, groups: list[pa.Table], table: pa.Table) -> None:
        """Append a row group to an attempt at `name`."""
        self._hook("write", "before")
        self.refuse(name)
        groups.append(table)
        self._hook("write", "after")

    def publish(self, name: str, table: pa.Table) -> None:
        """One step, that a crash comes before or after."""
        self._hook("publish", "before")
        self.refuse(name)
        self.visible[name] = table
        self.published.append(name)
        self._hook("publish", "after")

    def attempt(self, name: str, schema: pa.Schema, compression: str) -> _Attempt:
        """Begin the file `name`."""
        if compression not in {"zstd", "snappy", "lz4", "gzip", "none"}:
            raise ValueError(f"compression {compression!r} is not known")
        self._hook("attempt", "before")
        self.refuse(name)
        self.attempts += 1
        self._hook("attempt", "after")
        return _Attempt(self, name, schema)

"""When a slot commits and where its files end; each commit runs beside the feeder's loop."""

import datetime
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from pipeline.batch import Partition, Settled
from pipeline.commit import Commit, Target, records
from pipeline.config import CommitPolicy, Roll
from pipeline.journal import Unrolled
from pipeline.layout import KEEP_ALIVE_SECONDS
from pipeline.ports import Background, Clock, Sink

# Where the broker is so busy that a commit takes half of its interval, commits cost throughput: 7 %
# of it at 100 ms, nothing at twice that. So they are then up to so many intervals apart.
MOST_INTERVALS = 2.0
# Positions that moved without records (markers, ends of partitions) need no haste.
QUIET_COMMIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Writing:
    """The one commit that runs in the background."""

    commit: Commit
    future: Future[None]
    started: float


class Committer:
    """The commits of one slot, one at a time; owned by the feeder's loop.

    `positions` are those of the claim, which has written a roll record with them. `ahead` says
    that predictions are produced before their commit. `rolled` are the positions of the latest
    boundary, `seconds` is how long the latest commit took, `ended_at` when it ended by the epoch.
    """

    def __init__(
        self,
        target: Target,
        sink: Sink,
        policy: CommitPolicy,
        roll: Roll,
        positions: Mapping[Partition, int],
        *,
        ahead: bool,
        background: Background,
        clock: Clock,
    ) -> None:
        self._target = target
        self._sink = sink
        self._policy = policy
        self._roll = roll
        self._ahead = ahead
        self._background = background
        self._clock = clock
        self._writing: _Writing | None = None
        self._sequence = 0
        self._latest = clock.monotonic()
        self._unrolled = Unrolled()
        self.rolled = dict(positions)
        self.seconds: float | None = None
        self.ended_at: float | None = None

    @property
    def running(self) -> bool:
        """Whether a commit is on its way; until it has `finished` there is no other."""
        return self._writing is not None

    def finished(self, now: float) -> Commit | None:
        """The commit that has ended, once; raises what it met."""
        writing = self._writing
        if writing is None or not writing.future.done():
            return None
        writing.future.result()
        self._writing = None
        self.seconds = now - writing.started
        self.ended_at = self._clock.time()
        return writing.commit

    def due(self, rows: int, nbytes: int, now: float) -> bool:
        """Whether one should start, where so much is not committed."""
        policy = self._policy
        interval = policy.interval_ms / 1000
        busy = 2 * (self.seconds or 0.0)
        apart = min(max(interval, busy), MOST_INTERVALS * interval)
        large = rows >= policy.max_rows or nbytes >= policy.max_bytes
        return large or now - self._latest >= apart

    def start(
        self,
        parts: tuple[Settled, ...],
        committed: dict[Partition, int],
        positions: dict[Partition, int],
        *,
        drain: bool,
        last: bool,
        now: float,
    ) -> None:
        """Commit `parts` and go from `committed` to `positions`, where that says anything new.

        `last` says that nothing follows before the slot has drained.
        """
        ending = last and positions != self.rolled
        if not parts and not ending and not self._is_boundary(self._unrolled, now):
            age = now - self._latest
            moved = positions != committed
            if not (moved and (drain or age >= QUIET_COMMIT_SECONDS)) and age < KEEP_ALIVE_SECONDS:
                return
        date = datetime.datetime.fromtimestamp(self._clock.time(), datetime.UTC).date().isoformat()
        before, after = self._boundaries(parts, positions, date, ending, now)
        self._sequence += 1
        commit = Commit(self._sequence, parts, committed, positions, date, before, after)
        target, sink, ahead = self._target, self._sink, self._ahead

        def write() -> None:
            made = records(commit, target, predictions_sent=ahead)
            sink.write(made, commit.positions, commit.sequence)

        self._latest = now
        self._writing = _Writing(commit, self._background(write), now)

    def _boundaries(
        self,
        parts: tuple[Settled, ...],
        positions: dict[Partition, int],
        date: str,
        ending: bool,
        now: float,
    ) -> tuple[str | None, str | None]:
        """Why a file ends before this commit, and why behind it; None where none does."""
        before = after = None
        unrolled = self._unrolled
        if parts:
            if unrolled.date not in {None, date}:
                before, unrolled = "date", Unrolled()
            # Whole buffers, also shared ones: of a small part the exact size is dear.
            size = sum(part.scored.rows.get_total_buffer_size() for part in parts)
            unrolled = unrolled.plus(now, size, date)
        if ending:
            after = "drain"
        elif self._is_boundary(unrolled, now):
            after = "size" if unrolled.nbytes >= self._roll.max_bytes else "interval"
        if after is not None:
            unrolled, self.rolled = Unrolled(), positions
        self._unrolled = unrolled
        return before, after

    def _is_boundary(self, unrolled: Unrolled, now: float) -> bool:
        return unrolled.due(now, self._roll.interval_seconds, self._roll.max_bytes)

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the commit that runs, for so long or until it has ended; it raises later."""
        if self._writing is None:
            return
        try:
            self._writing.future.exception(timeout=seconds)
        except TimeoutError:
            return

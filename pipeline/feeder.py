"""The loop of one slot: poll, batch, send, collect, commit. One thread; beside it runs one commit.

The driver calls `turn(orders)` and gets a `Report`. Every blocking call in a turn is shorter than
the turn. Errors of the commit in the background are raised again at the loop's next step.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.batch import Settled
from pipeline.batcher import Batcher
from pipeline.commit import Target, predictions
from pipeline.committer import Committer
from pipeline.config import CommitPolicy, DeadLetters, Roll
from pipeline.control import Orders, Report, WaitingOn
from pipeline.dispatch import Dispatch
from pipeline.errors import Retriable
from pipeline.ledger import Ledger
from pipeline.ports import Ahead, Background, Claimed, Clock, Sink, Source
from pipeline.progress import DeadRatio, Progress

# At most this long in one call, so that an answer or a finished commit is soon seen.
POLL_SECONDS = 0.005
# While answers are on their way a poll must not hold them up.
BUSY_POLL_SECONDS = 0.001
BLOCKED_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Policies:
    """The settings that a feeder follows."""

    commit: CommitPolicy
    roll: Roll
    dead_letters: DeadLetters


class Feeder:
    """Owns the side effects of its partitions; created after the claim, used by one thread.

    `ahead` takes predictions before their commit, as soon as they are settled; it is None where
    only a commit may show them.
    """

    def __init__(
        self,
        *,
        target: Target,
        claimed: Claimed,
        suspect_rows: int,
        source: Source,
        sink: Sink,
        ahead: Ahead | None,
        batcher: Batcher,
        dispatch: Dispatch,
        policies: Policies,
        background: Background,
        clock: Clock,
        memory: Callable[[], int],
    ) -> None:
        self._target = target
        self._source = source
        self._sink = sink
        self._ahead = ahead
        self._held_back = False
        # Not in a commit yet; bounded with the ledger, which counts them until they are committed.
        self._sent: list[Settled] = []
        self._batcher = batcher
        self._dispatch = dispatch
        self._policies = policies
        self._committer = Committer(
            target,
            sink,
            policies.commit,
            policies.roll,
            claimed.positions,
            ahead=ahead is not None,
            background=background,
            clock=clock,
        )
        self._clock = clock
        self._memory = memory
        self._suspect_rows = suspect_rows
        self._ledger = Ledger(claimed.positions)
        self._progress = Progress(target.input_topic, claimed.positions)
        subject = f"{target.input_topic} in slot {target.slot}"
        self._dead_ratio = DeadRatio(policies.dead_letters, subject)
        self._failed = False

    def turn(self, orders: Orders) -> Report:
        """Work for at most `orders.seconds`; less when the driver is needed.

        Raises Fenced, OutcomeUnknown, Retriable, ClusterUnfit, TooManyDeadLetters.
        """
        if self._failed:
            raise Retriable("this feeder failed in an earlier turn; its successor goes on")
        # The driver has queued a further turn, which must not commit past what a failed one lost.
        self._failed = True
        report = self._turn(orders)
        self._failed = False
        return report

    def _turn(self, orders: Orders) -> Report:
        self._dispatch.orders(orders.replicas, orders.isolation)
        self._batcher.resize(orders.batch_size)
        end = self._clock.monotonic() + orders.seconds
        waited = dict.fromkeys(WaitingOn, 0.0)
        isolating = self._dispatch.needs_isolation
        while True:
            began = self._clock.monotonic()
            waiting = self._step(orders.drain, began)
            now = self._clock.monotonic()
            waited[waiting] += now - began
            drained = orders.drain and self._is_drained()
            asks = self._dispatch.lost or self._dispatch.needs_isolation != isolating
            if now >= end or drained or asks:
                break
        if not self._committer.running:
            self._sink.tend()
        return self._report(max(waited, key=lambda w: waited[w]), drained)

    def _step(self, drain: bool, now: float) -> WaitingOn:
        self._finish_commit(now)
        behind = self._batcher.full
        if self._batcher.due(now) or (drain and self._batcher.rows):
            while self._dispatch.room and self._batcher.rows:
                self._cut()
                self._dispatch.send(now)
                if not (drain or self._batcher.due(now)):
                    break
        for span in self._batcher.skips():
            self._ledger.skip(span)
        self._dispatch.send(now)
        full = self._is_full()
        waiting_on = self._waiting_on(full, behind, now)
        may_poll = not (drain or full or self._batcher.full)
        self._collect(0.0 if may_poll else BLOCKED_SECONDS)
        if self._ahead is not None:
            # While the broker is slow more gathers here, as Nagle's algorithm has it (RFC 896).
            self._held_back = not self._ahead.arrived()
        if not self._held_back:
            self._start_commit(drain, now)
            self._send()
        if may_poll:
            self._poll()
        elif not self._dispatch.in_flight():
            self._await_commit()
        return waiting_on

    def _poll(self) -> None:
        # With a batch in the making and none out there is nothing to do before that one is due.
        idle = self._dispatch.idle and not self._held_back
        left = self._batcher.left(self._clock.monotonic())
        fill = idle and left > 0
        timeout = min(left or POLL_SECONDS, POLL_SECONDS) if idle else BUSY_POLL_SECONDS
        polled = self._source.poll(self._poll_room(), timeout, fill=fill)
        self._batcher.add(polled, self._clock.monotonic())
        self._progress.polled(polled)

    def _poll_room(self) -> int:
        return max(1, self._batcher.limits.rows - self._batcher.rows)

    def _is_full(self) -> bool:
        policy = self._policies.commit
        rows = self._ledger.rows + self._batcher.rows
        nbytes = self._ledger.nbytes + self._batcher.nbytes
        return rows >= 2 * policy.max_rows or nbytes >= 2 * policy.max_bytes

    def _waiting_on(self, full: bool, behind: bool, now: float) -> WaitingOn:
        due = self._batcher.full or full or self._batcher.due(now)
        if due and not self._dispatch.room:
            return WaitingOn.REPLICAS
        # A replica in this process keeps the loop while it scores. So a whole batch that stood
        # there when the loop came back has waited for it, and so does what is not polled yet.
        if behind and self._dispatch.scores_here:
            return WaitingOn.REPLICAS
        return WaitingOn.SINK if full else WaitingOn.RECORDS

    def _cut(self) -> None:
        batch = self._batcher.take()
        suspected = self._suspect_rows > 0
        self._suspect_rows -= batch.rows
        self._ledger.open(batch)
        self._dispatch.submit(batch, suspected)

    def _collect(self, timeout: float) -> None:
        scored, splits = self._dispatch.collect(timeout, self._clock.monotonic)
        for split in splits:
            self._ledger.split(split.batch, split.parts)
        for answer in scored:
            self._ledger.settle(answer)
            self._dead_ratio.take(answer)

    def _send(self) -> None:
        """Send predictions ahead of their commit, where that may be."""
        if self._ahead is None:
            return
        for part in self._ledger.take():
            self._ahead.send(predictions(part, self._target))
            self._sent.append(part)

    def _start_commit(self, drain: bool, now: float) -> None:
        ledger, committer = self._ledger, self._committer
        if committer.running or not (drain or committer.due(ledger.rows, ledger.nbytes, now)):
            return
        # What was sent ahead has arrived by now; what was not sent yet is for the next commit.
        parts = ledger.take() if self._ahead is None else tuple(self._sent)
        self._sent.clear()
        committer.start(
            parts,
            self._progress.committed,
            ledger.positions(),
            drain=drain,
            last=drain and self._nothing_in_flight(),
            now=now,
        )

    def _finish_commit(self, now: float) -> None:
        commit = self._committer.finished(now)
        if commit is not None:
            self._ledger.written(commit.parts)
            self._progress.wrote(commit)

    def _await_commit(self) -> None:
        """Wait a little where there is nothing to poll and no answer to wait for."""
        if self._ahead is not None and self._held_back:
            self._ahead.wait(BLOCKED_SECONDS)
        elif self._committer.running:
            self._committer.wait(BLOCKED_SECONDS)
        else:
            self._clock.sleep(BLOCKED_SECONDS)

    def _nothing_in_flight(self) -> bool:
        return self._batcher.rows == 0 and self._dispatch.idle

    def _is_drained(self) -> bool:
        return (
            not self._committer.running
            and self._nothing_in_flight()
            and self._ledger.rows == 0
            and self._progress.committed == self._committer.rolled
            and self._ledger.positions() == self._progress.committed
        )

    def _report(self, waiting_on: WaitingOn, drained: bool) -> Report:
        progress = self._progress
        lost, timings = tuple(self._dispatch.lost), tuple(self._dispatch.timings)
        self._dispatch.lost.clear()
        self._dispatch.timings.clear()
        return Report(
            slot=self._target.slot,
            epoch=self._target.epoch,
            partitions=progress.partitions(self._ledger.positions()),
            records_in=progress.records_in,
            records_out=progress.records_out,
            dead=dict(progress.dead),
            in_flight=self._dispatch.in_flight(),
            timings=timings,
            lost=lost,
            needs_isolation=self._dispatch.needs_isolation,
            waiting_on=waiting_on,
            uncommitted_rows=self._ledger.rows,
            commits=progress.commits,
            last_commit_seconds=self._committer.seconds,
            committed_at=self._committer.ended_at,
            drained=drained,
            memory_bytes=self._memory(),
        )

    def close(self) -> None:
        """Wait for the commit in the background, then give everything back."""
        self._committer.wait()
        self._source.close()
        self._sink.close()
        if self._ahead is not None:
            self._ahead.close()

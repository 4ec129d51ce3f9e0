"""How far a feeder has come, and how many of its records failed: what its reports are made of."""

from collections import deque
from collections.abc import Mapping

import numpy as np

from pipeline.batch import Partition, Scored
from pipeline.commit import Commit
from pipeline.config import DeadLetters
from pipeline.control import PartitionReport
from pipeline.errors import TooManyDeadLetters
from pipeline.ports import Polled


class Progress:
    """Positions, ages and counts of one feeder since its claim; owned by the feeder's loop."""

    def __init__(self, topic: str, positions: Mapping[Partition, int]) -> None:
        self._topic = topic
        self._start = dict(positions)
        self._polled = dict(positions)
        # (first timestamp, end) of each poll that is not committed, by partition; bounded by the
        # rows that a feeder may hold uncommitted.
        self._ages: dict[Partition, deque[tuple[int, int]]] = {p: deque() for p in positions}
        self.committed = dict(positions)
        self.records_in = 0
        self.records_out = 0
        self.dead: dict[str, int] = {}
        self.commits = 0

    def polled(self, polled: Polled) -> None:
        """Take one poll in."""
        for number in np.unique(polled.partitions).tolist():
            partition = Partition(self._topic, number)
            rows = np.flatnonzero(polled.partitions == number)
            following = int(polled.offsets[rows[-1]]) + 1
            self._ages[partition].append((int(polled.timestamps[rows[0]]), following))
            self._polled[partition] = following
        for number, end in polled.ends.items():
            self._polled[Partition(self._topic, number)] = end

    def wrote(self, commit: Commit) -> None:
        """Take in a commit that is known to hold."""
        self.committed = commit.positions
        self.commits += 1
        for part in commit.parts:
            self.records_in += part.batch.rows
            self.records_out += part.scored.rows.num_rows
            for reject in part.scored.rejects:
                reason = f"{reject.stage}:{reject.exception}"
                self.dead[reason] = self.dead.get(reason, 0) + 1
        for partition, ages in self._ages.items():
            while ages and ages[0][1] <= self.committed[partition]:
                ages.popleft()

    def partitions(self, done: Mapping[Partition, int]) -> tuple[PartitionReport, ...]:
        """Where each partition stands; `done` are the ends of the settled prefixes."""
        return tuple(
            PartitionReport(
                partition=partition,
                start=start,
                position=self._polled[partition],
                done=done[partition],
                committed=self.committed[partition],
                oldest=self._ages[partition][0][0] if self._ages[partition] else None,
            )
            for partition, start in self._start.items()
        )


class DeadRatio:
    """The share of dead letters among the latest records of a slot; owned by the feeder's loop."""

    def __init__(self, limits: DeadLetters, subject: str) -> None:
        self._limits = limits
        self._subject = subject
        # (records, dead letters) of the latest answers, together about one window.
        self._recent: deque[tuple[int, int]] = deque()
        self._records = 0
        self._dead = 0

    def take(self, answer: Scored) -> None:
        """Count one answer. Raises TooManyDeadLetters over the limit, before it is committed."""
        limits, dead = self._limits, len(answer.rejects)
        records = answer.rows.num_rows + dead
        self._recent.append((records, dead))
        self._records += records
        self._dead += dead
        while self._records - self._recent[0][0] >= limits.window:
            old_records, old_dead = self._recent.popleft()
            self._records -= old_records
            self._dead -= old_dead
        if (
            dead
            and self._records >= limits.window
            and self._dead > limits.max_dead_ratio * self._records
        ):
            raise TooManyDeadLetters(
                f"dead_letters.max_dead_ratio = {limits.max_dead_ratio}: {self._dead} of the last "
                f"{self._records} records of {self._subject} cannot be scored (the last one: "
                f"{answer.rejects[-1].message}). They are not committed: mend the events or the "
                "model and start again, or raise the limit"
            )

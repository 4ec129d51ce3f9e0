"""One slot of a run: its partitions, its present feeder, and where it is in its life.

- STARTING to RUNNING once it has claimed its slot;
- RUNNING to DRAINED when told to drain;
- STARTING and RUNNING to WAITING when it fails, and from there to STARTING after a pause;
- RUNNING to WAITING once it has drained for a successor that gets new partitions with the others;
- STARTING and RUNNING to FAILED where no successor can help.
"""

import enum
from dataclasses import dataclass, field
from typing import Any

from pipeline.batch import Partition
from pipeline.control import Report
from pipeline.starts import FailedStarts

FIRST_PAUSE_SECONDS = 0.2


class State(enum.Enum):
    """Where a slot is."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    DRAINED = "drained"
    FAILED = "failed"


@dataclass(slots=True)
class Slot:
    """One slot and its present feeder. `incarnation` tells late replies of a predecessor apart.

    `scoring` counts unanswered turns, up to the last one in which the feeder may score itself.
    `died_at` is when the predecessor of a feeder that has not reported yet ended, by the clock that
    never goes back. `grown` is what its next feeder gets where the topic has more partitions than
    `partitions` was made of, None where there is nothing new; `ending` says that the run has
    ordered a drain. `committed` are the offsets that the predecessors knew to be committed.
    """

    number: int
    partitions: tuple[Partition, ...]
    grown: tuple[Partition, ...] | None = None
    ending: bool = False
    state: State = State.WAITING
    handle: Any = None
    pid: int = 0
    incarnation: int = 0
    turns: int = 0
    scoring: int = 0
    since: float = 0.0
    heard: float = 0.0
    due: float = 0.0
    pause: float = FIRST_PAUSE_SECONDS
    died_at: float | None = None
    suspect: bool = False
    fenced: str = ""
    starts: FailedStarts = field(default_factory=FailedStarts)
    report: Report | None = None
    committed: dict[Partition, int] = field(default_factory=dict)
    finished_in: int = 0
    finished_out: int = 0
    finished_dead: dict[str, int] = field(default_factory=dict)

    def totals(self) -> tuple[int, int, dict[str, int]]:
        """Records in, predictions and dead letters by reason, over all incarnations."""
        dead = dict(self.finished_dead)
        if self.report is None:
            return self.finished_in, self.finished_out, dead
        for reason, count in self.report.dead.items():
            dead[reason] = dead.get(reason, 0) + count
        return (
            self.finished_in + self.report.records_in,
            self.finished_out + self.report.records_out,
            dead,
        )

    def end(self) -> None:
        """Enter what the present feeder has reported: there will be no more of it."""
        self.finished_in, self.finished_out, self.finished_dead = self.totals()
        if self.report is not None:
            self.committed.update((p.partition, p.committed) for p in self.report.partitions)
        self.report = None

    def lost(self, report: Report) -> str:
        """What of acknowledged commits a successor has not found, empty where nothing is."""
        back = ", ".join(
            f"{item.partition} from {item.start}, where {self.committed[item.partition]} was known"
            for item in report.partitions
            if item.start < self.committed.get(item.partition, 0)
        )
        return back and (
            f"slot {self.number} goes on behind commits that the cluster had acknowledged: {back}. "
            "It has lost them, or somebody has set the offsets back: `headrace verify` says what "
            "came of it, and `headrace check` whether this release of Kafka is known for it"
        )

    def taken_over(self, report: Report, seconds: float) -> str:
        """From where a successor goes on by its first report, `seconds` after its predecessor."""
        starts = ", ".join(f"{item.partition} from {item.start}" for item in report.partitions)
        return (
            f"slot {self.number} is taken over after {seconds:.1f} s, in process {self.pid} and "
            f"epoch {report.epoch}: {starts}"
        )

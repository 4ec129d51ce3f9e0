"""When starts that failed in a row are bad luck no more: one rule for feeders and replicas."""

from dataclasses import dataclass

from pipeline.ports import ActorDied

# What cannot be built, as a model that does not open, fails each time.
START_FAILURES = 3
# A process that dies while it starts was mostly killed by something that passes: a node that goes,
# a neighbour that takes the memory. One that dies each time does so by itself.
LOST_STARTS = 10


@dataclass(slots=True)
class FailedStarts:
    """How many starts have failed since the last one that did not; owned by what starts anew."""

    failed: int = 0
    died: int = 0

    def count(self, error: Exception) -> bool:
        """Add one; whether there are too many now: `START_FAILURES`, or `LOST_STARTS` deaths."""
        if isinstance(error, ActorDied):
            self.died += 1
        else:
            self.failed += 1
        return self.failed >= START_FAILURES or self.died >= LOST_STARTS

    def forgive(self) -> None:
        """One has started."""
        self.failed = self.died = 0

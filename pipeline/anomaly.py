"""What an audit may find, by name, and the collection that keeps counts and a few examples."""

import enum
from dataclasses import dataclass

# Enough to see a pattern; a broken stream must not fill the memory with its breaks.
EXAMPLES = 5


class Anomaly(enum.StrEnum):
    """The names are Jepsen's where it has one."""

    LOST = "lost"
    DUPLICATE = "duplicate"
    ABORTED_READ = "aborted read"
    REORDERED = "reordered"
    TORN = "torn"
    MISMATCHED = "mismatched"
    INVENTED = "invented"
    STALE_EPOCH = "stale epoch"


MEANING = {
    Anomaly.LOST: "was promised and is not there",
    Anomaly.DUPLICATE: "is there more than once",
    Anomaly.ABORTED_READ: "is visible and was never committed, or not yet",
    Anomaly.REORDERED: "stands in another order than its records, or where its key does not belong",
    Anomaly.TORN: "is there in part only",
    Anomaly.MISMATCHED: "says something else in one place than in another",
    Anomaly.INVENTED: "answers for a record that does not exist",
    Anomaly.STALE_EPOCH: "was written by an owner that had a successor",
}


@dataclass(slots=True)
class Finding:
    """One kind of anomaly in one place; `count` is of rows, records or files as `where` has."""

    anomaly: Anomaly
    where: str
    count: int
    examples: list[str]


class Findings:
    """Findings by anomaly and place; bounded, as there are few of both."""

    def __init__(self) -> None:
        self._found: dict[tuple[Anomaly, str], Finding] = {}

    def add(self, anomaly: Anomaly, where: str, example: str, count: int = 1) -> None:
        """Count an anomaly in a place (a topic, the journal, Parquet)."""
        if count == 0:
            return
        found = self._found.setdefault((anomaly, where), Finding(anomaly, where, 0, []))
        found.count += count
        if len(found.examples) < EXAMPLES and example not in found.examples:
            found.examples.append(example)

    def all(self) -> tuple[Finding, ...]:
        """What was found, by anomaly and place."""
        order = list(Anomaly)
        found = self._found.values()
        return tuple(sorted(found, key=lambda one: (order.index(one.anomaly), one.where)))

    def clear(self) -> None:
        """Forget everything: what was read until now is not asked about."""
        self._found.clear()

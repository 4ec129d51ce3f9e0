"""Every error that Headrace raises, named by who must act next.

HeadraceError
├── ConfigInvalid        the user: mend the config, the model folder or the command line; exit 2
├── ClusterUnfit         the operator: mend a topic, a permission, a disk or the cluster; exit 4
├── TooManyDeadLetters   the user: look at the dead letters before going on; exit 5
├── NotCheckable         the user: nothing is known to be wrong, nor that all is well; exit 6
├── AnotherRunTookOver   nobody: another run of this job owns the fence; exit 3
├── Fenced               the driver: ask whether it ordered the successor that fenced this feeder
├── OutcomeUnknown       the driver: start a successor, which finds out by reading
└── Retriable            the driver: start a successor after a pause
    └── OffsetsHeld      the same; where it stays, the operator: end the transaction that holds them

A record that cannot be scored is no error: it is a `Reject`, and becomes a dead letter.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class HeadraceError(Exception):
    """The root; `exit_code` is what the command ends with."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to mend: the setting, the value found, what is wrong, and the way out."""

    setting: str
    value: object
    problem: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.setting} = {self.value!r}: {self.problem}. {self.way_out}"


class ConfigInvalid(HeadraceError):
    """The user must mend what is listed; nothing was started."""

    exit_code = 2

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__(self.mistakes)

    def __str__(self) -> str:
        return "\n".join(str(mistake) for mistake in self.mistakes)


class ClusterUnfit(HeadraceError):
    """The operator must mend the broker, a topic, a permission, the disk or the Ray cluster."""

    exit_code = 4


class TooManyDeadLetters(HeadraceError):
    """The share of dead letters passed `max_dead_ratio`: the schema is probably wrong."""

    exit_code = 5


class NotCheckable(HeadraceError):
    """What `headrace verify` was asked about, or a part of it, cannot be read."""

    exit_code = 6


class AnotherRunTookOver(HeadraceError):
    """Another run of this job fenced this one, which must not fence it back."""

    exit_code = 3


class Fenced(HeadraceError):
    """The transactional id has a newer owner: this feeder ends and never initialises again."""


class OutcomeUnknown(HeadraceError):
    """A commit may or may not have been applied; only a successor's claim can tell."""


class Retriable(HeadraceError):
    """The broker or a node failed in a way that passes; a successor may try again after a pause."""


class OffsetsHeld(Retriable):
    """An open transaction of somebody else keeps the group's offsets from being read."""

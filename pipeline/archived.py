"""What the archive has accepted of one journal partition, and what it accepts next.

An input partition moves to another journal partition when the number of slots changes, and goes
back in the input at a reset. Both begin a new generation of the layout: its first record here
forgets what was expected, so that rows are compared only within one generation, and records of an
older one, which only a writer without a fence can append, are used no more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from pipeline.errors import ClusterUnfit
from pipeline.journal import HANDOVER, RollRecord

# [partition, first, next], as chunks and commit records have them.
Spans: TypeAlias = Sequence[tuple[int, int, int]]


@dataclass(slots=True)
class Archived:
    """Next offsets by input partition: accepted so far, and at the newest file boundary.

    Owned by the archiver's line of the journal partition. `layout` is the newest generation seen.
    """

    layout: int = 0
    expected: dict[int, int] = field(default_factory=dict)
    rolled: dict[int, int] = field(default_factory=dict)

    def takes(self, layout: int) -> bool:
        """Enter a newer generation; False where the record is of one that has ended here."""
        if layout > self.layout:
            self.layout, self.expected, self.rolled = layout, {}, {}
        return layout == self.layout

    def roll(self, record: RollRecord) -> None:
        """Take in a boundary of the present generation.

        What was accepted beyond it stays: an at-least-once predecessor may have written more than
        its offsets say. After a hand-over the partitions are another journal partition's.
        """
        own = {} if record.reason == HANDOVER else record.positions
        self.rolled = {int(number): offset for number, offset in own.items()}
        for number, offset in self.rolled.items():
            self.expected.setdefault(number, offset)

    def accept(self, spans: Spans) -> dict[int, tuple[int, int]]:
        """Take in spans of the present generation; what is accepted of them, as `accept` says."""
        accepted = accept(self.expected, spans)
        for number, (_, following) in accepted.items():
            self.expected[number] = following
        return accepted


def accept(expected: Mapping[int, int], spans: Spans) -> dict[int, tuple[int, int]]:
    """The part `[first, next)` of each span that continues what is expected, by input partition.

    A partition that was never seen accepts whatever comes first.
    """
    accepted = {}
    for number, first, following in spans:
        due = expected.get(number, first)
        if first <= due < following:
            accepted[number] = (due, following)
    return accepted


class _Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """`accepted` holds the expected offsets that differ from the rolled ones: mostly none."""

    layout: int
    rolled: dict[str, int]
    accepted: dict[str, int] = {}


def encode_note(archived: Archived) -> str:
    """What stands beside the archive's progress, within the broker's limit for metadata."""
    rolled = archived.rolled
    return msgspec.json.encode(
        _Note(
            archived.layout,
            {str(n): offset for n, offset in rolled.items()},
            {str(n): at for n, at in archived.expected.items() if rolled.get(n) != at},
        )
    ).decode()


def decode_note(note: str) -> Archived:
    """What a note says; an empty one, of a first start, expects nothing particular."""
    if not note:
        return Archived()
    try:
        found = msgspec.json.decode(note, type=_Note)
    except msgspec.DecodeError as problem:
        raise ClusterUnfit(
            f"the archive's progress carries the note {note!r}, which is not one of headrace's. "
            "Another client committed under this group: give the job a group of its own"
        ) from problem
    rolled = {int(number): offset for number, offset in found.rolled.items()}
    accepted = {int(number): offset for number, offset in found.accepted.items()}
    return Archived(found.layout, {**rolled, **accepted}, rolled)

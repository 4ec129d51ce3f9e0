"""What must be true of a job's outputs, as a pure check: streams of records in, findings out.

Every input record below the committed offset has one answer, a prediction or a dead letter; every
prediction has its row in the journal, once, and says the same; nothing answers for what is not
there or not committed; predictions keep the order of their records. `audit_journal` says what must
be true of the journal and of the files made of it, and is fed first; then come the outputs, here;
then `audit_inputs` holds what was found to the records that there are.

Streams may come in any order and with anything in them: sets of offsets (`marks`) and sums of
digests (`books`) take them in, so that memory does not grow with the rows. Where the sums of a
window differ, `audit_rows` reads that window again and names the rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.anomaly import Anomaly, Findings
from pipeline.answers import Predictions, by_source, letter_source
from pipeline.books import TOPIC, Book
from pipeline.contents import digests, of_predictions
from pipeline.marks import Mask, Offsets
from pipeline.ports import Records


@dataclass(frozen=True, slots=True)
class Promise:
    """What the job promises, and of which topics.

    `ordered` says that a prediction stands in the partition number of its record, else
    `partition_of` tells where a key belongs. `input_whole` is False where compaction removes
    records that were scored.
    """

    input_topic: str
    predictions_topic: str
    dead_topic: str
    exactly_once: bool
    ordered: bool
    partition_of: Callable[[bytes], int]
    input_whole: bool = True


@dataclass(slots=True)
class Counts:
    """What was read; `repeated` are answers to records that were answered before."""

    predictions: int = 0
    dead_letters: int = 0
    repeated: int = 0


@dataclass(slots=True)
class _First:
    """The first source of each partition that a partition of an output topic still holds.

    Of a topic that retention has cut, what is missing below may have been there.
    """

    cut: bool
    sources: dict[int, int] = field(default_factory=dict)


class Audit:
    """Takes in what a `read_committed` reader sees; `findings` holds what is wrong.

    `committed` are the committed offsets of all partitions, as they were before any end was looked
    up; -1 for one that has none yet.
    """

    def __init__(self, promise: Promise, committed: Mapping[int, int]) -> None:
        self.promise = promise
        # Of the layout, where offsets were last set anew, and the outputs' positions there.
        self.generation = 0
        self.outputs: Mapping[str, Sequence[int]] = {}
        self.findings = Findings()
        self.counts = Counts()
        self.books = {number: Book(offset) for number, offset in committed.items()}
        self._last: dict[tuple[int, int], int] = {}
        self._first: dict[str, dict[int, _First]] = {
            promise.predictions_topic: {},
            promise.dead_topic: {},
        }

    def restart(self, generation: int, outputs: Mapping[str, Sequence[int]]) -> None:
        """Forget all: a generation begins, at `outputs` by topic and partition."""
        self.generation, self.outputs = generation, outputs
        self.books = {number: Book(book.committed) for number, book in self.books.items()}
        self.findings.clear()

    def has_row(self, partition: int, offsets: Offsets) -> Mask:
        """Which records of a partition have a row in the journal as far as it was read."""
        book = self.books.get(partition)
        return np.zeros(len(offsets), np.bool_) if book is None else book.row.has(offsets)

    # -- answers ---------------------------------------------------------------------------------

    def open(self, topic: str, number: int, *, cut: bool) -> None:
        """Begin a partition of an output; `cut` says that retention has removed some of it."""
        self._first[topic][number] = _First(cut)

    def predictions(self, number: int, records: Records) -> None:
        """Take in predictions of one partition, in offset order."""
        topic = self.promise.predictions_topic
        found, strange = by_source(records)
        for index in strange:
            place = f"{topic}/{number}@{records.offsets[index]}"
            self.findings.add(Anomaly.INVENTED, topic, f"{place} is no prediction")
        for partition, predictions in found.items():
            self._predicted(number, partition, predictions)

    def _predicted(self, number: int, partition: int, found: Predictions) -> None:
        topic, sources = self.promise.predictions_topic, found.sources
        self.counts.predictions += len(sources)
        book = self.books.get(partition)
        if book is None:
            place = self.source(partition, int(sources[0]))
            text = f"answers for {place}, which the input does not have"
            self.findings.add(Anomaly.INVENTED, topic, text, len(sources))
            return
        self._first[topic][number].sources.setdefault(partition, int(sources[0]))
        self._in_place(number, partition, found)
        again = book.predicted.add(sources)
        self._ascending(number, partition, sources, again)
        self._repeated(topic, partition, sources, again, "has more than one prediction")
        fresh = np.flatnonzero(~again)
        starts = [offset for offset, _ in book.schemas]
        pieces = np.searchsorted(starts, sources[fresh], "right")
        for piece in np.unique(pieces[pieces > 0]).tolist():
            rows = fresh[pieces == piece]
            chosen = rows.tolist()
            said = of_predictions(
                sources[rows].tolist(),
                [found.keys[i] for i in chosen],
                [found.values[i] for i in chosen],
                book.schemas[piece - 1][1],
            )
            book.add_contents(
                TOPIC, sources[rows], digests(said), number, [found.offsets[i] for i in chosen]
            )

    def _in_place(self, number: int, partition: int, found: Predictions) -> None:
        topic, sources = self.promise.predictions_topic, found.sources
        if self.promise.ordered:
            if partition != number:
                text = f"{self.source(partition, int(sources[0]))} is answered in {topic}/{number}"
                self.findings.add(Anomaly.REORDERED, topic, text, len(sources))
            return
        for source, key in zip(sources.tolist(), found.keys, strict=True):
            if key and (wanted := self.promise.partition_of(key)) != number:
                place = self.source(partition, source)
                text = f"{place} is answered in {topic}/{number}, its key belongs to {wanted}"
                self.findings.add(Anomaly.REORDERED, topic, text)

    def _ascending(self, number: int, partition: int, sources: Offsets, again: Mask) -> None:
        """Order by partition, and so by key: records of one key come from one partition."""
        before = np.concatenate([[self._last.get((number, partition), -1)], sources[:-1]])
        self._last[number, partition] = int(sources[-1])
        # After a failure at least once goes back, and says so.
        back = np.flatnonzero((sources < before) & ~again)
        if self.promise.exactly_once and len(back):
            first = int(back[0])
            text = (
                f"{self.source(partition, int(sources[first]))} is answered after {before[first]}"
            )
            self.findings.add(Anomaly.REORDERED, self.promise.predictions_topic, text, len(back))

    def _repeated(
        self, topic: str, partition: int, sources: Offsets, again: Mask, text: str
    ) -> None:
        repeated = sources[again]
        self.counts.repeated += len(repeated)
        if self.promise.exactly_once:
            self.add(Anomaly.DUPLICATE, topic, partition, repeated, text)

    def dead_letters(self, number: int, records: Records) -> None:
        """Take in dead letters of one partition, in offset order; the topic may hold others'."""
        topic = self.promise.dead_topic
        found: dict[int, list[int]] = {}
        for headers in records.headers:
            place = letter_source(headers, self.promise.input_topic)
            if place is not None:
                found.setdefault(place[0], []).append(place[1])
        for partition, offsets in found.items():
            sources = np.array(offsets, np.int64)
            self.counts.dead_letters += len(sources)
            book = self.books.get(partition)
            if book is None:
                example = self.source(partition, offsets[0])
                text = f"answers for {example}, which the input does not have"
                self.findings.add(Anomaly.INVENTED, topic, text, len(offsets))
                continue
            self._first[topic][number].sources.setdefault(partition, offsets[0])
            again = book.dead.add(sources)
            self._repeated(topic, partition, sources, again, "has more than one dead letter")

    def removable_below(self, output: str, partition: int) -> float | None:
        """Below which record retention may have removed answers of a partition, None if not.

        `output` is the predictions' topic or that of the dead letters.
        """
        held = self._first[output]
        if output == self.promise.predictions_topic and self.promise.ordered:
            held = {number: one for number, one in held.items() if number == partition}
        bounds = [one.sources.get(partition, float("inf")) for one in held.values() if one.cut]
        return max(bounds, default=None)

    def add(
        self, anomaly: Anomaly, where: str, partition: int, offsets: Offsets, text: str
    ) -> None:
        """Count records of a partition by the first one; `text` goes on from its place."""
        if len(offsets):
            example = f"{self.source(partition, int(offsets[0]))} {text}"
            self.findings.add(anomaly, where, example, len(offsets))

    def source(self, partition: int, offset: int) -> str:
        """A record of the input by its place."""
        return f"{self.promise.input_topic}/{partition}@{offset}"

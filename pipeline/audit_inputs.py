"""The outputs held to the records that there are, and to the offsets that are committed."""

from collections.abc import Iterator, Mapping

import numpy as np

from pipeline.anomaly import Anomaly
from pipeline.audit import Audit
from pipeline.books import Book
from pipeline.marks import Mask, Offsets

# Offsets that are looked at together, a byte or two for each and for what is asked of it.
AT_ONCE = 1 << 18


def first_offset(book: Book, log_start: int) -> int:
    """The first offset that is looked at: where the job began, or where the input's log does."""
    return max(log_start, book.committed if book.start is None else book.start)


def audit_inputs(
    audit: Audit, partition: int, first: int, following: int, offsets: Offsets
) -> None:
    """Hold `[first, following)` of one partition, whose records are `offsets`, to the promise.

    Ranges go from `first_offset` to the committed offset; journal and outputs are known by then.
    """
    while first < following:
        end = min(following, first + AT_ONCE)
        inside = offsets[(offsets >= first) & (offsets < end)]
        _hold(audit, partition, first, end, inside)
        first = end


def _hold(audit: Audit, partition: int, first: int, following: int, offsets: Offsets) -> None:
    book, promise = audit.books[partition], audit.promise
    book.records += len(offsets)
    present = np.zeros(following - first, np.bool_)
    present[offsets - first] = True
    row = book.row.mask(first, following)
    predicted = book.predicted.mask(first, following)
    dead = book.dead.mask(first, following)
    may_be_dead = book.may_be_dead.mask(first, following)
    answered = predicted | dead
    nothing = present & ~answered & ~row

    def add(anomaly: Anomaly, where: str, mask: Mask, text: str) -> None:
        audit.add(anomaly, where, partition, np.flatnonzero(mask) + first, text)

    def lost(output: str, missing: Mask, text: str) -> None:
        add(Anomaly.LOST, output, _not_removed(audit, output, partition, first, missing), text)

    add(Anomaly.LOST, promise.input_topic, nothing & ~may_be_dead, "has no answer")
    lost(promise.predictions_topic, present & row & ~predicted, "has a row and no prediction")
    text = "has neither a prediction nor a dead letter"
    lost(promise.dead_topic, nothing & may_be_dead, text)
    no_row = present & predicted & ~row
    if promise.exactly_once:
        text = "has a prediction and a dead letter"
        add(Anomaly.DUPLICATE, promise.dead_topic, predicted & dead, text)
        text = "has a dead letter that no commit counts"
        add(Anomaly.MISMATCHED, promise.dead_topic, dead & present & ~may_be_dead, text)
    else:
        # One attempt made a prediction of it, the one whose rows were taken a dead letter.
        no_row &= ~dead
    add(Anomaly.LOST, "journal", no_row, "has a prediction and no row")
    if promise.input_whole:
        text = "is answered, and there is no such record"
        add(Anomaly.INVENTED, promise.input_topic, (answered | row) & ~present, text)


def _not_removed(audit: Audit, output: str, partition: int, first: int, missing: Mask) -> Mask:
    """What is missing of an output and cannot be what retention has removed of it.

    The rest moves the book's cut: below it nothing can be said.
    """
    below = audit.removable_below(output, partition)
    if below is None or not missing.any():
        return missing
    removable = missing & (np.arange(first, first + len(missing)) < below)
    if removable.any():
        book = audit.books[partition]
        book.cut = max(book.cut, first + int(np.flatnonzero(removable)[-1]) + 1)
    return missing & ~removable


def audit_end(audit: Audit, committed: Mapping[int, int], epochs: Mapping[int, int]) -> None:
    """Compare with the committed offsets and the epochs in their metadata.

    `committed` were read after everything else: what is visible beyond them is not committed.
    `epochs` belong to the offsets that the audit began with.
    """
    for partition, book in audit.books.items():
        for anomaly, text in _wrong(audit, book, epochs.get(partition, 0)):
            place = f"{audit.promise.input_topic}/{partition}"
            audit.findings.add(anomaly, "journal", f"{place}: {text}")
        if audit.promise.exactly_once:
            _beyond(audit, partition, book, committed[partition])


def _wrong(audit: Audit, book: Book, epoch: int) -> Iterator[tuple[Anomaly, str]]:
    """Where the journal's commits and the committed offset do not agree."""
    strict = audit.promise.exactly_once
    for reached, first in book.breaks():
        if reached < first:
            yield Anomaly.LOST, f"no commit covers the offsets from {reached} to {first}"
        elif strict:
            yield Anomaly.DUPLICATE, f"two commits cover the offsets from {first} to {reached}"
    if book.reached is not None and book.reached < book.committed:
        text = f"commits end at {book.reached}, the committed offset is {book.committed}"
        yield Anomaly.LOST, text
    if book.spans and book.committed >= 0 and not book.stands:
        yield Anomaly.MISMATCHED, f"no commit ends at the committed offset {book.committed}"
    if strict and epoch < book.epoch:
        text = f"the committed offset has epoch {epoch}, its commit {book.epoch}"
        yield Anomaly.STALE_EPOCH, text


def _beyond(audit: Audit, partition: int, book: Book, committed: int) -> None:
    outputs = {
        audit.promise.predictions_topic: book.predicted,
        audit.promise.dead_topic: book.dead,
        "journal": book.row,
    }
    for where, marks in outputs.items():
        text = f"is answered, and committed is {committed}"
        audit.add(Anomaly.ABORTED_READ, where, partition, marks.from_offset(committed), text)

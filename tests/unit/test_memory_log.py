"""The log that the doubles share: how transactions end, one step after the other."""

import pytest

from pipeline.batch import Outgoing, Partition
from pipeline.control import Assignment, Layout
from pipeline.errors import Fenced, OutcomeUnknown, Retriable
from pipeline.layout import Stored, encode
from pipeline.testing import MemoryLog, MemorySink, Transaction

P, OUT = Partition("in", 0), Partition("out", 0)
LAYOUT = Layout(1, 1, 1, "id", True)


def log_of(*, settle_later: bool = False) -> MemoryLog:
    log = MemoryLog(settle_later=settle_later)
    for topic in ("in", "out"):
        log.create(topic, 1)
    log.commit_offsets("job", {P: Stored(0, encode(LAYOUT, 0, 0))})
    return log


def half(log: MemoryLog, epoch: int) -> Transaction:
    """A transaction that has written one record and no offsets yet."""
    transaction = log.begin("job.0000", epoch)
    log.append(OUT, None, b"half", transaction=transaction)
    return transaction


def test_markers_and_offsets_follow_the_decision_one_by_one() -> None:
    """Until its marker is there a record is not stable; until they are taken in, offsets neither."""
    log = log_of(settle_later=True)
    transaction = half(log, log.init("job.0000"))
    log.send_offsets(transaction, "job", {P: Stored(7, "")})
    log.commit(transaction)
    assert log.records("out", 0) == []
    assert log.settle()
    assert [record.value for record in log.records("out", 0)] == [b"half"]
    with pytest.raises(Retriable, match=r"job\.0000 holds a transaction"):
        log.committed("job", [P])
    assert log.latest("job", [P])[P].offset == 0
    assert log.settle()
    assert log.committed("job", [P])[P].offset == 7
    assert not log.settle()


def test_a_claim_waits_for_markers_and_not_for_offsets() -> None:
    """After `init` all that its predecessor wrote is stable or gone; its offsets may still come."""
    log = log_of(settle_later=True)
    transaction = half(log, log.init("job.0000"))
    log.send_offsets(transaction, "job", {P: Stored(7, "")})
    log.commit(transaction)
    log.init("job.0000")
    assert [record.value for record in log.records("out", 0)] == [b"half"]
    with pytest.raises(Retriable):
        log.committed("job", [P])


def test_a_late_end_commits_whatever_its_epoch_has_open() -> None:
    """The first protocol names no transaction in it; an epoch later it finds nobody."""
    log = log_of()
    epoch = log.init("job.0000")
    transaction = half(log, epoch)
    log.end("job.0000", epoch)
    assert transaction.committed
    with pytest.raises(OutcomeUnknown):
        log.append(OUT, None, b"rest", transaction=transaction)
    log.commit(transaction)
    half(log, log.init("job.0000"))
    log.end("job.0000", epoch)
    assert [record.value for record in log.records("out", 0)] == [b"half"]


def test_a_transaction_that_stays_open_is_aborted_and_its_owner_fenced() -> None:
    """As at `transaction.timeout.ms`."""
    log = log_of()
    transaction = half(log, log.init("job.0000"))
    log.time_out("job.0000")
    assert transaction.committed is False
    with pytest.raises(Fenced):
        log.commit(transaction)
    assert log.records("out", 0) == []


class _Unanswered(MemoryLog):
    """Applies a commit and loses the answer, as often as it is told."""

    lost = 0

    def commit(self, transaction: Transaction) -> None:
        super().commit(transaction)
        if self.lost:
            self.lost -= 1
            raise Retriable("no answer")


def sink_of(lost: int) -> tuple[_Unanswered, MemorySink]:
    log = _Unanswered()
    log.create("in", 1)
    log.create("out", 1)
    log.commit_offsets("job", {P: Stored(0, encode(LAYOUT, 0, 0))})
    sink = MemorySink(log, "job", "job.0000")
    sink.claim(Assignment(0, LAYOUT, (P,), 1), lambda _: [])
    log.lost = lost
    return log, sink


def test_a_commit_that_took_two_requests_is_the_producers_last() -> None:
    """It holds; but the first request may still come, and would end the next transaction."""
    log, sink = sink_of(lost=1)
    sink.write([Outgoing.of("out", 0, [None], [b"a"])], {P: 1}, 1)
    with pytest.raises(OutcomeUnknown, match="took 2 EndTxn"):
        sink.write([Outgoing.of("out", 0, [None], [b"b"])], {P: 2}, 2)
    assert [record.value for record in log.records("out", 0)] == [b"a"]
    assert log.committed("job", [P])[P].offset == 1


def test_a_commit_that_nobody_answers_is_unknown() -> None:
    """Only a successor's claim finds out that it held."""
    log, sink = sink_of(lost=9)
    with pytest.raises(OutcomeUnknown):
        sink.write([Outgoing.of("out", 0, [None], [b"a"])], {P: 1}, 1)
    assert log.committed("job", [P])[P].offset == 1

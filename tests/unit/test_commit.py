"""A commit's records: predictions in order, dead letters, and the journal in its order."""

from dataclasses import replace

import pytest

from pipeline import journal
from pipeline.batch import Batch, Outgoing, Partition, Settled
from pipeline.commit import Commit, Target, records
from pipeline.testing import batch_of, score

TARGET = Target(
    slot=2,
    epoch=5,
    layout=3,
    writer="w",
    input_topic="in",
    predictions_topic="out",
    dead_topic="dead",
    journal_topic="journal",
    ordered=True,
    model_name="sample",
    model_version="1",
    dead_value_bytes=100,
)
P, Q = Partition("in", 0), Partition("in", 3)


def settled(batch: Batch) -> Settled:
    return Settled(batch, score(batch))


def made(*batches: Batch, **changed: object) -> list[Outgoing]:
    commit = Commit(
        sequence=9,
        parts=tuple(map(settled, batches)),
        starts={P: 4, Q: 7},
        positions={P: 10, Q: 20},
        date="2026-01-31",
        roll_before=None,
        roll_after=None,
    )
    return list(records(replace(commit, **changed), TARGET))  # type: ignore[arg-type]


def of(topic: str, found: list[Outgoing]) -> list[Outgoing]:
    return [one for one in found if one.topic == topic]


def kinds(found: Outgoing) -> list[str]:
    return [journal.read_key(key or b"").kind for key, _ in found.pairs()]


BATCH = batch_of(
    1, "in", [(0, 4, b"a"), (0, 5, b"bad"), (0, 6, b"b"), (3, 7, b"bad"), (3, 8, b"c")]
)


def test_ordered_predictions_keep_partition_key_and_order() -> None:
    """Each goes to the partition number of its record, under its key; rejects leave no gap."""
    found = of("out", made(BATCH))
    assert [(one.partition, one.keys.to_pylist(), one.values.to_pylist()) for one in found] == [
        (0, [b"k4", b"k6"], [b"0/4", b"0/6"]),
        (3, [b"k8"], [b"3/8"]),
    ]


def test_a_batch_without_rejects_keeps_every_key() -> None:
    """The short way through gives the same as the long one."""
    found = of("out", made(batch_of(1, "in", [(0, 4, b"a"), (3, 7, b"b"), (3, 8, b"c")])))
    assert [(one.partition, one.keys.to_pylist(), one.values.to_pylist()) for one in found] == [
        (0, [b"k4"], [b"0/4"]),
        (3, [b"k7", b"k8"], [b"3/7", b"3/8"]),
    ]


def test_unordered_predictions_go_by_key() -> None:
    """Without equal partition numbers the partitioner chooses."""
    commit = Commit(9, (settled(BATCH),), {P: 4, Q: 7}, {P: 10, Q: 20}, "2026-01-31", None, None)
    (found,) = of("out", list(records(commit, replace(TARGET, ordered=False))))
    assert found.partition is None
    assert found.pairs() == [(b"k4", b"0/4"), (b"k6", b"0/6"), (b"k8", b"3/8")]


def test_dead_letters_name_their_own_partition_and_offset() -> None:
    """Rejects of several partitions each carry their record and place."""
    (found,) = of("dead", made(BATCH))
    assert found.pairs() == [(b"k5", b"bad"), (b"k7", b"bad")]
    assert found.headers is not None
    places = [
        (dict(h)["__dlq.errors.partition"], dict(h)["__dlq.errors.offset"]) for h in found.headers
    ]
    assert places == [(b"0", b"5"), (b"3", b"7")]


def test_headers_of_the_record_go_with_its_dead_letter() -> None:
    """They are kept in the feeder and found by row."""
    batch = replace(BATCH, headers=[None, [("t", b"5")], None, None, None])
    (found,) = of("dead", made(batch))
    assert found.headers is not None
    assert ("t", b"5") in found.headers[0]


def test_the_journal_holds_roll_chunks_commit_and_roll_in_this_order() -> None:
    """A boundary before, the rows, their commit record, a boundary after; in the slot's partition."""
    (found,) = of("journal", made(BATCH, roll_before="date", roll_after="drain"))
    assert found.partition == TARGET.slot
    assert kinds(found) == ["roll", "chunk", "commit", "roll"]
    before, _, commit, after = found.values.to_pylist()
    assert journal.read_roll(before or b"").positions == {"0": 4, "3": 7}
    assert journal.read_roll(after or b"").positions == {"0": 10, "3": 20}
    assert journal.read_roll(after or b"").layout == TARGET.layout
    record = journal.read_commit(commit or b"")
    assert (record.chunks, record.rows_in, record.rows_out, record.dead) == (1, 5, 3, 2)
    assert record.spans == [(0, 4, 10), (3, 7, 20)]
    assert (record.writer, record.epoch, record.sequence) == ("w", 5, 9)
    assert record.layout == TARGET.layout
    assert (record.topic, record.date) == ("in", "2026-01-31")


def test_the_answers_of_one_commit_share_a_chunk() -> None:
    """Each small one would cost the archiver as much as a large one."""
    (found,) = of("journal", made(BATCH, batch_of(2, "in", [(0, 12, b"w")]), starts={P: 2, Q: 7}))
    (key, value), _ = found.pairs()
    assert journal.read_key(key or b"").spans == [(0, 2, 13), (3, 7, 9)]
    assert journal.read_chunk(value or b"")["offset"].to_pylist() == [4, 6, 8, 12]


def test_each_chunk_answers_for_what_lies_up_to_its_last_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its spans continue those of the chunk before, over dead letters and offsets without records."""
    whole = journal.split
    monkeypatch.setattr(journal, "split", lambda rows, _=1: whole(rows, 1))
    (found,) = of("journal", made(BATCH, batch_of(2, "in", [(0, 12, b"w")]), starts={P: 2, Q: 7}))
    keys = [journal.read_key(key or b"") for key, _ in found.pairs()[:-1]]
    assert [key.spans for key in keys] == [[(0, 2, 5)], [(0, 5, 7)], [(3, 7, 9)], [(0, 7, 13)]]
    assert {(key.writer, key.sequence, key.date) for key in keys} == {("w", 9, "2026-01-31")}
    assert {key.layout for key in keys} == {TARGET.layout}


def test_a_commit_without_rows_writes_no_prediction_and_no_chunk() -> None:
    """Positions that move, and boundaries, stand alone."""
    assert of("out", made()) == of("dead", made()) == []
    (found,) = made(roll_after="interval")
    assert kinds(found) == ["commit", "roll"]


def test_offsets_without_records_are_part_of_their_commit() -> None:
    """A partition that moved over markers alone has a span; one that did not move has none."""
    (found,) = made(starts={P: 4, Q: 20})
    record = journal.read_commit(found.values[0].as_py())
    assert record.spans == [(0, 4, 10)]
    assert (record.chunks, record.rows_in, record.rows_out, record.dead) == (0, 0, 0, 0)


def test_a_commit_that_moves_nothing_writes_nothing() -> None:
    """Offsets that are only kept alive leave the journal as it is; a boundary stands alone."""
    still = {P: 10, Q: 20}
    assert made(starts=still) == []
    (found,) = made(starts=still, roll_after="interval")
    assert kinds(found) == ["roll"]

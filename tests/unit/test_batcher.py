"""The batcher: every record in exactly one batch, within the limits, spans without gaps."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batch import Batch, Partition, Span
from pipeline.batcher import Batcher, Limits
from pipeline.testing import polled_of

TOPIC = "in"


def made(rows: int = 3, nbytes: int = 1 << 20, delay: float = 1.0) -> Batcher:
    return Batcher(TOPIC, {Partition(TOPIC, n): 0 for n in range(2)}, Limits(rows, nbytes, delay))


def weight(batch: Batch) -> int:
    pairs = zip(batch.keys.to_pylist(), batch.values.to_pylist(), strict=True)
    return sum(len(key or b"") + len(value or b"") for key, value in pairs)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_record_is_in_one_batch_and_spans_continue_each_other(data: st.DataObject) -> None:
    """Over any polls, ends and limits: nothing lost, nothing twice, no gap and no overlap."""
    limits = Limits(data.draw(st.integers(1, 6)), data.draw(st.integers(1, 60)), 0.0)
    at = {number: data.draw(st.integers(0, 4)) for number in range(3)}
    batcher = Batcher(TOPIC, {Partition(TOPIC, n): o for n, o in at.items()}, limits)
    covered = dict(at)
    entered: list[tuple[int, int]] = []
    left: list[tuple[int, int]] = []
    ends: dict[int, int] = {}

    def cover(span: Span) -> None:
        assert span.first == covered[span.partition.number]
        assert span.next > span.first
        covered[span.partition.number] = span.next

    def take() -> None:
        batch = batcher.take()
        assert 1 <= batch.rows <= limits.rows
        assert batch.rows == 1 or weight(batch) <= limits.nbytes
        row = 0
        for span in batch.spans:
            cover(span)
            offsets = batch.offsets[row : row + span.rows].to_pylist()
            assert offsets == sorted(offsets)
            assert span.rows > 0
            assert span.first <= offsets[0]
            assert offsets[-1] < span.next
            left.extend((span.partition.number, offset) for offset in offsets)
            row += span.rows
        assert len({span.partition for span in batch.spans}) == len(batch.spans)

    for _ in range(data.draw(st.integers(0, 8))):
        rows, told = [], {}
        for number in data.draw(st.permutations(range(3))):
            for _ in range(data.draw(st.integers(0, 4))):
                at[number] += data.draw(st.integers(0, 2))
                rows.append((number, at[number], data.draw(st.binary(max_size=20))))
                at[number] += 1
            if data.draw(st.booleans()):
                at[number] += data.draw(st.integers(0, 2))
                told[number] = ends[number] = at[number]
        batcher.add(polled_of(rows, told), 0.0)
        entered += [(number, offset) for number, offset, _ in rows]
        while batcher.rows and data.draw(st.booleans()):
            take()
        for span in batcher.skips():
            assert span.rows == 0
            cover(span)
    while batcher.rows:
        take()
    for span in batcher.skips():
        cover(span)
    assert sorted(left) == sorted(entered)
    assert batcher.nbytes == 0
    for number, end in ends.items():
        assert covered[number] >= end
    assert {p.number: o for p, o in batcher.positions().items()} == covered


def test_a_batch_is_due_when_full_or_old() -> None:
    """Full by rows or by bytes at once; else once the oldest record has waited the delay."""
    batcher = made(rows=2, delay=1.0)
    assert not batcher.due(99.0)
    batcher.add(polled_of([(0, 0, b"x")]), 10.0)
    assert not batcher.due(10.9)
    assert batcher.due(11.0)
    batcher.add(polled_of([(0, 1, b"x")]), 10.5)
    assert batcher.due(10.5)
    heavy = made(nbytes=4)
    heavy.add(polled_of([(0, 0, b"four")]), 0.0)
    assert heavy.full


def test_the_rest_of_a_poll_keeps_its_age() -> None:
    """What is left of a poll that was cut is as old as the poll."""
    batcher = made(rows=2, delay=1.0)
    batcher.add(polled_of([(0, n, b"x") for n in range(3)]), 10.0)
    batcher.take()
    assert batcher.rows == 1
    assert not batcher.due(10.9)
    assert batcher.due(11.0)


def test_records_of_a_batch_are_grouped_by_partition_with_their_columns() -> None:
    """Interleaved partitions are sorted apart; keys, values and headers go with their record."""
    batcher = made(rows=9)
    headers = [[("n", b"%d" % i)] for i in range(4)]
    rows = [(1, 0, b"a"), (0, 0, b"b"), (1, 1, None), (0, 1, b"d")]
    batcher.add(polled_of(rows, headers=headers), 0.0)
    batcher.add(polled_of([(0, 2, b"e")]), 0.0)
    batch = batcher.take()
    assert [(s.partition.number, s.first, s.next, s.rows) for s in batch.spans] == [
        (0, 0, 3, 3),
        (1, 0, 2, 2),
    ]
    assert batch.values.to_pylist() == [b"b", b"d", b"e", b"a", None]
    assert batch.keys.to_pylist() == [b"k0", b"k1", b"k2", b"k0", b"k1"]
    assert batch.headers == [headers[1], headers[3], None, headers[0], headers[2]]
    assert batch.timestamps.to_pylist() == [1000, 1001, 1002, 1000, 1001]


def test_a_part_of_a_poll_travels_without_the_rest() -> None:
    """What is pickled of an Arrow array is all of its buffers; a whole poll is not copied."""
    batcher = made(rows=3)
    polled = polled_of([(0, n, b"x" * 1000) for n in range(4)])
    batcher.add(polled, 0.0)
    assert batcher.take().values.get_total_buffer_size() < 4000
    assert batcher.take().values.get_total_buffer_size() < 2000
    polled = polled_of([(0, n, b"x" * 1000) for n in range(4, 7)])
    batcher.add(polled, 0.0)
    assert batcher.take().values is polled.values


def test_an_end_is_a_skip_only_once_its_records_have_left() -> None:
    """The end of a partition does not pass records that still wait."""
    batcher = made()
    batcher.add(polled_of([(0, 0, b"x")], {0: 3, 1: 2}), 0.0)
    assert batcher.skips() == [Span(Partition(TOPIC, 1), 0, 2, 0)]
    assert batcher.skips() == []
    assert batcher.take().spans == (Span(Partition(TOPIC, 0), 0, 3, 1),)
    assert batcher.skips() == []


def test_ids_are_unique() -> None:
    """Parts of split batches and batches share one sequence."""
    batcher = made(rows=1)
    batcher.add(polled_of([(0, 0, b"x"), (0, 1, b"x")]), 0.0)
    ids = [batcher.take().id, batcher.new_id(), batcher.take().id, batcher.new_id()]
    assert len(set(ids)) == 4


def test_batches_can_be_made_smaller_and_never_larger_than_configured() -> None:
    """An order changes what comes next; none, or one that is too large, means the setting."""
    batcher = made(rows=4)
    batcher.add(polled_of([(0, n, b"x") for n in range(8)]), 0.0)
    taken = []
    for rows in (1, 3, 100, None):
        batcher.resize(rows)
        taken.append(batcher.take().rows if batcher.rows else batcher.limits.rows)
    assert taken == [1, 3, 4, 4]

"""Batches and answers: cutting one into parts loses nothing and repeats nothing."""

import itertools

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batch import Batch
from pipeline.testing import batch_of, score

VALUES = st.one_of(st.none(), st.just(b"bad"), st.binary(max_size=8))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Rows of up to three partitions, with holes between offsets and after the last one."""
    rows, ends = [], {}
    for number in draw(st.lists(st.integers(0, 9), unique=True, min_size=1, max_size=3)):
        offset = draw(st.integers(0, 5))
        for value in draw(st.lists(VALUES, min_size=1, max_size=8)):
            rows.append((number, offset, value))
            offset += draw(st.integers(1, 3))
        ends[number] = offset
    return batch_of(7, "in", rows, ends)


def cuts(draw: st.DataObject, rows: int) -> list[tuple[int, int]]:
    inner = draw.draw(st.lists(st.integers(1, max(rows - 1, 1)), unique=True, max_size=4))
    edges = [0, *sorted(cut for cut in inner if cut < rows), rows]
    return list(itertools.pairwise(edges))


@given(batches(), st.data())
def test_slices_of_a_batch_together_are_the_batch(batch: Batch, data: st.DataObject) -> None:
    """Rows, spans and counts of slices that follow each other make up the whole."""
    parts = [batch.slice(start, stop) for start, stop in cuts(data, batch.rows)]
    for column in ("offsets", "timestamps", "keys", "values"):
        whole = pa.concat_arrays([getattr(part, column) for part in parts])
        assert whole.equals(getattr(batch, column))
    assert sum(span.rows for part in parts for span in part.spans) == batch.rows
    for span in batch.spans:
        pieces = [s for part in parts for s in part.spans if s.partition == span.partition]
        assert (pieces[0].first, pieces[-1].next) == (span.first, span.next)
        assert all(a.next == b.first for a, b in itertools.pairwise(pieces))


@given(batches(), st.data())
def test_spans_of_a_slice_hold_its_offsets(batch: Batch, data: st.DataObject) -> None:
    """Each span of a slice covers exactly the rows that stand at its place."""
    for start, stop in cuts(data, batch.rows):
        part = batch.slice(start, stop)
        row = 0
        for span in part.spans:
            offsets = part.offsets[row : row + span.rows].to_pylist()
            assert all(span.first <= offset < span.next for offset in offsets)
            row += span.rows
        assert row == part.rows


@given(batches(), st.data())
def test_slices_of_an_answer_together_are_the_answer(batch: Batch, data: st.DataObject) -> None:
    """Rows, predictions, accepted row numbers and rejects add up, counted from each slice."""
    scored = score(batch)
    edges = cuts(data, batch.rows)
    parts = [scored.slice(start, stop) for start, stop in edges]
    assert pa.Table.from_batches([p.rows for p in parts]).equals(
        pa.Table.from_batches([scored.rows])
    ) or (scored.rows.num_rows == 0 and not any(p.rows.num_rows for p in parts))
    predictions = [one for part in parts for one in part.predictions.to_pylist()]
    assert predictions == scored.predictions.to_pylist()
    starts = [start for start, _ in edges]
    accepted = [start + int(i) for start, p in zip(starts, parts, strict=True) for i in p.accepted]
    assert accepted == scored.accepted.tolist()
    rejected = [start + r.row for start, p in zip(starts, parts, strict=True) for r in p.rejects]
    assert rejected == [reject.row for reject in scored.rejects]


@given(batches(), st.data())
def test_a_slice_scores_like_the_slice_of_the_score(batch: Batch, data: st.DataObject) -> None:
    """Cutting before or after scoring makes no difference to rows and predictions."""
    scored = score(batch)
    for start, stop in cuts(data, batch.rows):
        before, after = score(batch.slice(start, stop)), scored.slice(start, stop)
        assert before.rows.to_pylist() == after.rows.to_pylist()
        assert before.predictions.equals(after.predictions)
        assert before.accepted.tolist() == after.accepted.tolist()


@given(batches(), st.data())
def test_bytes_of_slices_add_up_to_those_of_the_batch(batch: Batch, data: st.DataObject) -> None:
    """They are the bytes of keys and values alone, however the batch is cut."""
    columns = (batch.keys.to_pylist(), batch.values.to_pylist())
    assert batch.nbytes == sum(len(one or b"") for column in columns for one in column)
    assert batch.nbytes == sum(batch.slice(*edges).nbytes for edges in cuts(data, batch.rows))
    assert batch.slice(0, 0).nbytes == 0


def test_headers_are_cut_with_the_rows() -> None:
    """A slice has the headers of its rows, and none travel to a replica."""
    plain = batch_of(1, "in", [(0, n, b"v") for n in range(3)])
    batch = Batch(
        **{name: getattr(plain, name) for name in Batch.__slots__ if name != "headers"},
        headers=[[("a", b"0")], None, [("a", b"2")]],
    )
    assert batch.slice(1, 3, 9).headers == [None, [("a", b"2")]]
    assert batch.slice(1, 3, 9).id == 9
    assert batch.without_headers().headers is None

"""One commit as an immutable value, and the records that it consists of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from pipeline import journal
from pipeline.batch import Outgoing, Partition, Settled
from pipeline.dead_letters import dead_letter


@dataclass(frozen=True, slots=True)
class Target:
    """Where a slot writes, fixed from its claim on.

    `layout` is the generation of the layout that it was claimed in. `ordered` sends a prediction
    to the partition number of its record. `dead_value_bytes` is the longest value that the
    dead-letter topic takes whole.
    """

    slot: int
    epoch: int
    layout: int
    writer: str
    input_topic: str
    predictions_topic: str
    dead_topic: str
    journal_topic: str
    ordered: bool
    model_name: str
    model_version: str
    dead_value_bytes: int


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit writes; `positions` are next offsets. Rolls name their reason, or None."""

    sequence: int
    parts: tuple[Settled, ...]
    starts: dict[Partition, int]
    positions: dict[Partition, int]
    date: str
    roll_before: str | None
    roll_after: str | None


def records(
    commit: Commit, target: Target, *, predictions_sent: bool = False
) -> Iterator[Outgoing]:
    """Predictions unless they were sent before, dead letters and journal, made while produced."""
    if not predictions_sent:
        for part in commit.parts:
            yield from predictions(part, target)
    dead = [letter for part in commit.parts for letter in _dead_letters(part, target)]
    if dead:
        keys, values, headers = zip(*dead, strict=True)
        yield Outgoing.of(target.dead_topic, None, keys, values, headers)
    yield from _journal(commit, target)


def predictions(part: Settled, target: Target) -> Iterator[Outgoing]:
    """The predictions of one settled batch, under the keys of their records."""
    batch, scored = part.batch, part.scored
    values = scored.predictions
    whole = len(values) == batch.rows
    keys = batch.keys if whole else batch.keys.take(scored.accepted)
    if not target.ordered:
        yield Outgoing(target.predictions_topic, None, keys, values)
        return
    row = 0
    for span in batch.spans:
        low, high = row, row + span.rows
        row = high
        if not whole:
            low, high = (int(i) for i in scored.accepted.searchsorted((low, high)))
        if low < high:
            yield Outgoing(
                target.predictions_topic, span.partition.number, keys[low:high], values[low:high]
            )


def _dead_letters(part: Settled, target: Target) -> Iterator[tuple[Any, Any, Any]]:
    batch = part.batch
    for reject in part.scored.rejects:
        row = 0
        for span in batch.spans:
            row += span.rows
            if reject.row < row:
                break
        yield dead_letter(
            reject,
            key=batch.keys[reject.row].as_py(),
            value=batch.values[reject.row].as_py(),
            headers=None if batch.headers is None else batch.headers[reject.row],
            partition=span.partition,
            offset=int(batch.offsets[reject.row].as_py()),
            model=(target.model_name, target.model_version),
            limit=target.dead_value_bytes,
        )


def _journal(commit: Commit, target: Target) -> Iterator[Outgoing]:
    def roll(reason: str, positions: dict[Partition, int]) -> tuple[bytes, bytes]:
        value = journal.roll(
            target.writer, target.epoch, target.layout, reason, target.input_topic, positions
        )
        return journal.ROLL_KEY, value

    # From commit to commit without a gap: also over offsets that held no record.
    spans = [
        (partition.number, commit.starts[partition], following)
        for partition, following in sorted(commit.positions.items())
        if following > commit.starts[partition]
    ]
    pairs: list[tuple[bytes, bytes]] = []
    if commit.roll_before is not None:
        pairs.append(roll(commit.roll_before, commit.starts))
    chunks = list(_chunks(commit, target))
    pairs.extend(chunks)
    if spans:
        pairs.append((journal.COMMIT_KEY, _commit_record(commit, target, spans, len(chunks))))
    if commit.roll_after is not None:
        pairs.append(roll(commit.roll_after, commit.positions))
    if pairs:
        keys, values = zip(*pairs, strict=True)
        yield Outgoing.of(target.journal_topic, target.slot, keys, values)


def _chunks(commit: Commit, target: Target) -> Iterator[tuple[bytes, bytes]]:
    reached = {partition.number: first for partition, first in commit.starts.items()}
    # Together: a chunk of each small answer would cost whoever reads it as much as a large one.
    parts = [part.scored.rows for part in commit.parts]
    for rows in journal.split(pa.concat_batches(parts)) if parts else ():
        ends = journal.ends(rows)
        spans = [(number, reached[number], following) for number, following in ends.items()]
        reached.update(ends)
        key = journal.Key(
            kind=journal.CHUNK,
            writer=target.writer,
            sequence=commit.sequence,
            layout=target.layout,
            date=commit.date,
            spans=spans,
        )
        yield msgspec.json.encode(key), journal.write_chunk(rows)


def _commit_record(commit: Commit, target: Target, spans: Sequence[Any], chunks: int) -> bytes:
    return msgspec.json.encode(
        journal.CommitRecord(
            writer=target.writer,
            epoch=target.epoch,
            layout=target.layout,
            sequence=commit.sequence,
            topic=target.input_topic,
            spans=list(spans),
            chunks=chunks,
            rows_in=sum(part.batch.rows for part in commit.parts),
            rows_out=sum(part.scored.rows.num_rows for part in commit.parts),
            dead=sum(len(part.scored.rejects) for part in commit.parts),
            model_name=target.model_name,
            model_version=target.model_version,
            date=commit.date,
        )
    )

"""Row by row: which records of a window say something else in the topic than in the journal."""

import msgspec
import pyarrow as pa

from pipeline import journal
from pipeline.anomaly import Anomaly
from pipeline.answers import by_source
from pipeline.audit import Audit
from pipeline.contents import Row, differences, of_predictions, of_table
from pipeline.marks import WINDOW
from pipeline.ports import Records


class RowsAudit:
    """One window whose sums differ; holds its rows in memory.

    Take in the journal first, then the predictions. Where the topic repeats a prediction, one of
    them must be the row; an at-least-once journal may repeat a row as well.
    """

    def __init__(self, audit: Audit, partition: int, window: int) -> None:
        self._audit = audit
        self._partition = partition
        self._book = audit.books[partition]
        self._low = window * WINDOW
        self._rows: dict[int, list[Row]] = {}
        # What the topic says of a record, as long as it was never what the journal says.
        self._wrong: dict[int, Row | None] = {}
        self._right: set[int] = set()

    def journal(self, key: bytes | None, value: bytes | None) -> None:
        """Take in a record of the journal; what is no whole chunk was named by `audit_journal`."""
        try:
            if journal.read_key(key or b"").kind != journal.CHUNK:
                return
            table = journal.read_chunk(value or b"")
            rows = zip(table["partition"].to_pylist(), of_table(table), strict=True)
        except (msgspec.MsgspecError, ValueError, RecursionError, pa.ArrowException, KeyError):
            return
        for number, row in rows:
            if number == self._partition and self._low <= row[0] < self._low + WINDOW:
                self._rows.setdefault(row[0], []).append(row)

    def predictions(self, records: Records) -> None:
        """Take in predictions of one partition of the topic."""
        found, _ = by_source(records)
        if self._partition not in found:
            return
        mine = found[self._partition]
        for offset, key, value in zip(mine.sources.tolist(), mine.keys, mine.values, strict=True):
            schema = self._book.schema(offset)
            if offset not in self._rows or schema is None:
                continue
            (said,) = of_predictions([offset], [key], [value], schema)
            if said in self._rows[offset]:
                self._right.add(offset)
            else:
                self._wrong[offset] = said

    def finish(self) -> None:
        """Name the records that differ."""
        topic = self._audit.promise.predictions_topic
        for offset, said in sorted(self._wrong.items(), key=lambda item: item[0]):
            schema = self._book.schema(offset)
            if offset in self._right or schema is None:
                continue
            texts = ["it does not have the columns of its row"]
            if said is not None:
                texts = list(differences(schema, self._rows[offset][-1], said))
            place = self._audit.source(self._partition, offset)
            text = f"the prediction of {place} is not its row: {', '.join(texts)}"
            self._audit.findings.add(Anomaly.MISMATCHED, topic, text)

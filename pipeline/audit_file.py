"""One Parquet file beside the journal rows that it must hold, batch by batch, row by row."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.anomaly import Anomaly, Findings
from pipeline.marks import Mask, Offsets
from pipeline.ports import Unreadable

PARQUET = "Parquet"


class FileAudit:
    """A file in the journal: take in its rows one by one, then `end` it.

    `found` are the rows of the visible file, None where there is none. As long as both agree
    nothing is kept; from the first row on that stands elsewhere, 12 bytes a row to the file's end.
    `known` tells which records of a partition have a row in the journal so far.
    """

    def __init__(
        self,
        name: str,
        found: Iterator[pa.Table] | None,
        findings: Findings,
        known: Callable[[int, Offsets], Mask],
    ) -> None:
        self.name = name
        self._known = known
        self.visible = found is not None
        self.rows = 0
        self._found = iter(()) if found is None else found
        self._findings = findings
        self._rest: pa.Table | None = None
        self._unreadable = False
        # What the journal and the file hold from the first difference on.
        self._wanted_places: list[pa.Table] = []
        self._found_places: list[pa.Table] = []
        self._apart = False

    def expect(self, wanted: pa.Table) -> None:
        """The next rows of the journal."""
        self.rows += wanted.num_rows
        if not self.visible or self._unreadable:
            return
        found = self._take(wanted.num_rows)
        if not self._apart and places(found).equals(places(wanted)):
            self._compare(wanted, found)
            return
        self._apart = True
        self._wanted_places.append(places(wanted))
        self._found_places.append(places(found))

    def end(self, *, required: bool) -> None:
        """The journal's boundary; `required` says that the archiver has gone beyond it."""
        if not self.visible:
            if required:
                text = f"{self.name} is not there"
                self._findings.add(Anomaly.LOST, PARQUET, text, self.rows)
            return
        rest = self._take(1)
        while rest.num_rows and not self._unreadable:
            self._apart = True
            self._found_places.append(places(rest))
            rest = self._take(1 << 16)
        if self._apart and not self._unreadable:
            self._tell_apart()

    def never_rolled(self) -> None:
        """The journal ends without a boundary: the file must not be visible yet."""
        if self.visible:
            text = f"{self.name} is visible, and no boundary in the journal ends it"
            self._findings.add(Anomaly.ABORTED_READ, PARQUET, text)

    def _take(self, count: int) -> pa.Table:
        """At most `count` further rows of the file; fewer at its end."""
        pieces = [] if self._rest is None else [self._rest]
        have = sum(piece.num_rows for piece in pieces)
        try:
            while have < count and (piece := next(self._found, None)) is not None:
                pieces.append(piece)
                have += piece.num_rows
            table = pa.concat_tables(pieces) if pieces else _NOTHING
            # Looks at the columns: a file of another kind does not have them.
            places(table)
        except (Unreadable, pa.ArrowException, KeyError) as problem:
            self._unreadable = True
            self._findings.add(Anomaly.TORN, PARQUET, f"{self.name} cannot be read: {problem}")
            return _NOTHING
        self._rest = table.slice(count) if have > count else None
        return table.slice(0, count)

    def _compare(self, wanted: pa.Table, found: pa.Table) -> None:
        if decoded(wanted).equals(decoded(found)):
            return
        if wanted.schema.names != found.schema.names:
            text = f"{self.name} has other columns than the journal"
            self._findings.add(Anomaly.MISMATCHED, PARQUET, text, wanted.num_rows)
            return
        pairs = zip(wanted.to_pylist(), found.to_pylist(), strict=True)
        different = [(one, other) for one, other in pairs if one != other]
        if not different:
            text = f"{self.name} has columns of other types than the journal"
            self._findings.add(Anomaly.MISMATCHED, PARQUET, text, wanted.num_rows)
            return
        one, other = different[0]
        column = next(name for name in one if one[name] != other[name])
        text = (
            f"{self.name}: partition {one['partition']}, offset {one['offset']}: {column} is "
            f"{other[column]!r}, in the journal {one[column]!r}"
        )
        self._findings.add(Anomaly.MISMATCHED, PARQUET, text, len(different))

    def _tell_apart(self) -> None:
        wanted, found = _pairs(self._wanted_places), _pairs(self._found_places)
        if len(found) < len(wanted) and np.array_equal(found, wanted[: len(found)]):
            rest = len(wanted) - len(found)
            text = f"{self.name} ends {rest} rows before its end in the journal"
            self._findings.add(Anomaly.TORN, PARQUET, text, rest)
            return
        missing, strange = np.setdiff1d(wanted, found), np.setdiff1d(found, wanted)
        known = self._in_journal(strange)
        repeated = len(found) - len(np.unique(found)) + int(known.sum())
        for anomaly, rows, text in (
            (Anomaly.LOST, missing, "is missing"),
            (Anomaly.ABORTED_READ, strange[~known], "is not in the journal"),
        ):
            if len(rows):
                partition, offset = (int(number) for number in rows[0])
                example = f"{self.name}: partition {partition}, offset {offset} {text}"
                self._findings.add(anomaly, PARQUET, example, len(rows))
        text = f"{self.name} holds rows more than once"
        self._findings.add(Anomaly.DUPLICATE, PARQUET, text, repeated)
        if not (len(missing) or len(strange) or repeated):
            text = f"{self.name} holds its rows in another order than the journal"
            self._findings.add(Anomaly.REORDERED, PARQUET, text)

    def _in_journal(self, rows: Any) -> Mask:
        found = np.zeros(len(rows), np.bool_)
        for number in np.unique(rows["partition"]).tolist():
            mine = rows["partition"] == number
            found[mine] = self._known(number, rows["offset"][mine])
        return found


_NOTHING = pa.table({"partition": pa.array([], pa.int32()), "offset": pa.array([], pa.int64())})
_PLACE = np.dtype([("partition", np.int64), ("offset", np.int64)])


def places(table: pa.Table) -> pa.Table:
    """Where the records of the rows stand."""
    return pa.table({"partition": table["partition"], "offset": table["offset"]})


def _pairs(tables: list[pa.Table]) -> Any:
    count = sum(table.num_rows for table in tables)
    found = np.zeros(count, _PLACE)
    if count:
        whole = pa.concat_tables(tables)
        found["partition"], found["offset"] = whole["partition"], whole["offset"]
    return found


def decoded(table: pa.Table) -> pa.Table:
    """The table with plain texts for dictionary columns, which may number them differently."""
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.schema.names)

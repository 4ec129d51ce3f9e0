"""The visible files of one journal partition: which there must be, and which nobody asked for."""

import re
from collections.abc import Iterator, Sequence
from math import inf

import numpy as np
import pyarrow as pa

from pipeline.anomaly import Anomaly
from pipeline.audit import Audit
from pipeline.audit_file import PARQUET, FileAudit
from pipeline.marks import Offsets
from pipeline.ports import ParquetFiles, Unreadable

_NAME = re.compile(r"date=\d{4}-\d\d-\d\d/(\d{4,})-(\d{20})\.parquet")


def slot_and_offset(name: str) -> tuple[int, int] | None:
    """The journal partition and offset that a file is named after, None for another name."""
    found = _NAME.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


class FilesAudit:
    """The files of a journal partition, beside the rows of its journal.

    `names` are all visible files; `files` is None where there is no folder to look at. `archived`
    is the archiver's progress: what a boundary below it ends must be visible.
    """

    def __init__(
        self,
        audit: Audit,
        number: int,
        files: ParquetFiles | None,
        names: Sequence[str],
        archived: int,
    ) -> None:
        self._audit = audit
        self._number = number
        self._files = files
        self._archived = archived
        self._named: dict[int, list[str]] = {}
        for name in names:
            if (place := slot_and_offset(name)) is not None and place[0] == number:
                self._named.setdefault(place[1], []).append(name)
        self._met: set[str] = set()
        self._file: FileAudit | None = None
        self.compared = 0

    def expect(self, offset: int, date: str, table: pa.Table) -> None:
        """The next rows, of the chunk at a journal offset; they begin a file after a boundary."""
        if self._file is None:
            name = f"date={date}/{self._number:04d}-{offset:020d}.parquet"
            named = self._named.get(offset, [])
            visible = name if name in named else next(iter(named), None)
            if visible is not None:
                self._met.add(visible)
                if visible != name:
                    text = f"{visible} should be {name}"
                    self._audit.findings.add(Anomaly.MISMATCHED, PARQUET, text)
            found = None if visible is None or self._files is None else self._files.rows(visible)
            self._file = FileAudit(
                visible or name, found, self._audit.findings, self._audit.has_row
            )
        self._file.expect(table)

    def boundary(self, offset: int) -> None:
        """The boundary at a journal offset ends the file."""
        if self._file is not None:
            self._file.end(required=self._files is not None and offset < self._archived)
            self.compared += self._file.visible
        self._file = None

    def forget(self) -> None:
        """What came until now is not asked about."""
        self._file = None

    def end(self) -> None:
        """Nothing more comes: what has no boundary must not be visible."""
        if self._file is not None:
            self._file.never_rolled()
        self._file = None

    def between(self, low: float, high: float) -> list[str]:
        """Files that are named after offsets in `[low, high)`."""
        return [name for at, names in self._named.items() if low <= at < high for name in names]

    def strays(self, begins: float) -> list[str]:
        """Files of the part that was looked at, from `begins` on, that it does not name."""
        return [name for name in self.between(begins, inf) if name not in self._met]

    def accepted(self, begins: float) -> dict[int, int]:
        """By input partition, the offset after the last row of the files below `begins`."""
        ends: dict[int, int] = {}
        if self._files is None:
            return ends
        for name in self.between(0, begins):
            try:
                for number, offsets in _places(self._files, name):
                    ends[number] = max(ends.get(number, 0), int(offsets.max()) + 1)
            except (Unreadable, KeyError):
                continue  # found again by `audit_strays`
        return ends


def by_partition(table: pa.Table) -> dict[int, Offsets]:
    """The offsets of a table's rows by partition, in their order. Raises KeyError without both."""
    partitions, offsets = table["partition"].to_numpy(), table["offset"].to_numpy()
    return {int(number): offsets[partitions == number] for number in np.unique(partitions)}


def _places(files: ParquetFiles, name: str) -> Iterator[tuple[int, Offsets]]:
    for table in files.rows(name, ["partition", "offset"]):
        yield from by_partition(table).items()


def audit_strays(audit: Audit, files: ParquetFiles, names: Sequence[str], *, older: bool) -> None:
    """Files that the journal does not name, looked at once all journal partitions are known.

    `older` ones belong to what retention removed of the journal: only what they hold of the rest
    is wrong.
    """
    for name in names:
        repeated = unknown = 0
        try:
            for number, offsets in _places(files, name):
                known = int(audit.has_row(number, offsets).sum())
                repeated += known
                unknown += len(offsets) - known
        except (Unreadable, KeyError) as problem:
            audit.findings.add(Anomaly.TORN, PARQUET, f"{name} cannot be read: {problem}")
            continue
        text = f"{name} holds rows that belong to another file"
        audit.findings.add(Anomaly.DUPLICATE, PARQUET, text, repeated)
        if not older:
            text = f"{name} holds rows that the journal does not, or not yet"
            audit.findings.add(Anomaly.ABORTED_READ, PARQUET, text, unknown)

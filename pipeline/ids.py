"""Ids of events to indices of a vocabulary, by the choices of model.yaml; for any input format."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.model import IdSpec
from pipeline.ragged import Ragged, ones
from pipeline.vocabulary import UNKNOWN

Reasons: TypeAlias = dict[int, tuple[str, str]]


def id_type(spec: IdSpec) -> pa.DataType:
    """How a decoder hands a column of these ids over."""
    one = spec.vocabulary.ids.type
    return pa.list_(one) if spec.many else one


def to_indices(spec: IdSpec, column: pa.Array) -> tuple[Ragged, Reasons]:
    """The indices of a column of `id_type`, and why some rows are rejected: those mean nothing.

    A null in the place of an id is an unknown id; a null in the place of a list is an absent list.
    """
    ids, lists = _flat(spec, column)
    reasons: Reasons = {}
    unknown = lists.values == UNKNOWN
    if unknown.any():
        if spec.unknown == "drop":
            lists = lists.where(~unknown)
        elif spec.unknown == "reject":
            reasons = _unknown(spec, lists, ids, unknown)
        else:
            values = np.where(unknown, int(spec.unknown), lists.values)
            lists = Ragged(values, lists.offsets, lists.absent)
    if spec.empty == "reject":
        empty = lists.lengths == 0
        if lists.absent is not None:
            empty &= ~lists.absent
        problem = f"field {spec.field.path!r} has no id that the model knows; model.yaml says"
        for row in np.flatnonzero(empty).tolist():
            reasons.setdefault(row, ("EmptyList", f"{problem} empty: reject"))
    return lists, reasons


def _flat(spec: IdSpec, column: pa.Array) -> tuple[pa.Array, Ragged]:
    """All ids of the column in a row, and their indices."""
    if not spec.many:
        return column, ones(spec.vocabulary.indices(column))
    ids = column.flatten()
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    lists = Ragged.of_lengths(spec.vocabulary.indices(ids), lengths)
    absent = column.is_null().to_numpy(zero_copy_only=False) if spec.optional else None
    return ids, Ragged(lists.values, lists.offsets, absent)


def _unknown(spec: IdSpec, lists: Ragged, ids: pa.Array, unknown: npt.NDArray[np.bool_]) -> Reasons:
    """A reason for each row with an unknown id, which names the first one."""
    places = np.flatnonzero(unknown)
    rows, firsts = np.unique(lists.rows[places], return_index=True)
    vocabulary = spec.vocabulary.name
    reasons: Reasons = {}
    for row, place in zip(rows.tolist(), places[firsts].tolist(), strict=True):
        problem = f"field {spec.field.path!r} holds {ids[place].as_py()!r:.100}, which"
        text = f"{problem} vocabulary {vocabulary!r} lacks; model.yaml says unknown: reject"
        reasons[row] = ("UnknownId", text)
    return reasons

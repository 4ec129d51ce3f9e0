"""The ids that a model knows, and the index that stands for each: it ships with the model."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

# What `type` in model.yaml may be: how events and Parquet hold the ids.
ID_TYPES: dict[str, Any] = {"int64": pa.int64(), "string": pa.string()}
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The id at place i has the index `first + i`; indices below `first` stand for no id.

    `ids` is int64 or string without nulls and without repetitions.
    """

    name: str
    ids: pa.Array = field(repr=False)
    first: int = 0

    @property
    def size(self) -> int:
        """How many indices there are: what a model scores has one column for each."""
        return self.first + len(self.ids)

    def indices(self, ids: pa.Array) -> npt.NDArray[np.int64]:
        """The index of each id, UNKNOWN for a null and for an id that it lacks."""
        places = pc.index_in(ids, value_set=self.ids)
        found = places.fill_null(UNKNOWN).to_numpy(zero_copy_only=False).astype(np.int64)
        return np.where(found < 0, UNKNOWN, found + self.first)

    def lookup(self, indices: npt.NDArray[np.int64]) -> pa.Array:
        """The ids of indices from `first` on."""
        return self.ids.take(pa.array(indices - self.first))

    def ranks(self) -> npt.NDArray[np.int64]:
        """The place of each index `[size]` when all ids are sorted, for ties between scores."""
        ranks = np.zeros(self.size, np.int64)
        order = pc.sort_indices(self.ids).to_numpy()
        ranks[self.first + order] = np.arange(len(order))
        return ranks

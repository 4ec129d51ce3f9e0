"""A model that scores items as one that ranks them: forms in, the best k out, inside the replica.

It wraps a model behind the same port. What it is fed are arrays and lists of indices `[batch]`;
what it gives are, for each record, the ids of the best items and their scores.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.best import best_of_all, best_of_each
from pipeline.forms import formed
from pipeline.model import NUMPY_TYPES, Form, FormSpec, ModelSpec, RankingSpec, Signature
from pipeline.ragged import Ragged, ones
from pipeline.recipe import Feed
from pipeline.schema import ITEMS, SCORES
from pipeline.score import Model

# Records of one run: at most these, and fewer where a catalogue is so large that their scores and
# masks would leave the processor's cache and fill the memory.
RUN_ROWS = 2048
RUN_CELLS = 1 << 22


@dataclass(frozen=True, slots=True)
class Rules:
    """What the job's settings ask of a ranking.

    `barred` bool `[vocabulary.size]` is true for indices that are never recommended.
    """

    k: int
    exclude_seen: bool
    barred: npt.NDArray[np.bool_]


class Ranker:
    """Ranks what `model` scores; `spec.ranking` is not None."""

    def __init__(self, model: Model, spec: ModelSpec, signature: Signature, rules: Rules) -> None:
        assert spec.ranking is not None
        self._model = model
        self._spec = spec
        self._signature = signature
        self._rules = rules
        self._ranking: RankingSpec = spec.ranking
        self._ranks = spec.ranking.vocabulary.ranks()
        self._sizes = {one.name: one.vocabulary.size for one in spec.ids}
        self._size = spec.ranking.vocabulary.size
        self._blocks_itself = any(one.form is Form.BLOCKED for one in spec.forms)
        wide = not spec.pairs
        self._rows = max(1, min(RUN_ROWS, RUN_CELLS // self._size)) if wide else RUN_ROWS

    def run(self, feeds: Mapping[str, Feed]) -> dict[str, Any]:
        """The outputs that model.yaml keeps, and the columns `items` and `scores` as lists."""
        rows = max(map(len, feeds.values()))
        parts = [
            self._part({name: feed[row : row + self._rows] for name, feed in feeds.items()})
            for row in range(0, rows, self._rows)
        ]
        lists = {name: pa.concat_arrays([one[name] for one in parts]) for name in (ITEMS, SCORES)}
        kept = {
            output.name: np.concatenate([one[output.name] for one in parts])
            for output in self._spec.outputs
        }
        return lists | kept

    def _part(self, feeds: Mapping[str, Feed]) -> dict[str, Any]:
        given = {name: feed for name, feed in feeds.items() if isinstance(feed, Ragged)}
        arrays = {name: feed for name, feed in feeds.items() if isinstance(feed, np.ndarray)}
        rows = max(map(len, feeds.values()))
        if self._spec.pairs:
            return self._score_candidates(given, arrays)
        blind = self._ranking.indices is not None and not self._blocks_itself
        blocked = None if blind else self._blocked(given, rows)
        outputs = self._model.run(self._inputs(given, arrays, blocked))
        scores = outputs.pop(self._ranking.scores)
        if self._ranking.indices is None:
            assert blocked is not None
            scores = np.where(blocked, -np.inf, scores.reshape(rows, -1)).astype(scores.dtype)
            indices = best_of_all(scores, self._rules.k, self._ranks)
            scores = np.take_along_axis(scores, indices, axis=1)
        else:
            indices = outputs.pop(self._ranking.indices).astype(np.int64).reshape(rows, -1)
            scores = scores.reshape(rows, -1)
        # What is blocked has -inf, and a graph pads with it where fewer are left.
        offered = scores != -np.inf
        if blocked is None:
            offered &= ~self._is_blocked(given, indices)
        lists = Ragged(indices.reshape(-1), np.arange(rows + 1) * indices.shape[1])
        kept = lists.where(offered.reshape(-1))
        best, scored = best_of_each(kept, scores[offered], self._rules.k, self._ranks)
        return outputs | self._columns(best, scored)

    def _score_candidates(
        self, given: Mapping[str, Ragged], arrays: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, Any]:
        """One run over all pairs of a record and a candidate that may be recommended."""
        assert self._ranking.candidates is not None
        lists = given[self._ranking.candidates]
        rows = lists.rows
        keys = rows * self._size + lists.values
        offered = ~self._rules.barred[lists.values] & ~np.isin(keys, self._seen(given))
        # A candidate that is listed twice is scored once.
        first = np.zeros(len(keys), np.bool_)
        first[np.unique(keys, return_index=True)[1]] = True
        lists = lists.where(offered & first)
        rows = lists.rows
        if not len(rows):
            kind = self._signature.outputs[self._ranking.scores].kind
            return self._columns(lists, np.empty(0, NUMPY_TYPES[kind]))
        pairs = {name: feed[rows] for name, feed in arrays.items()}
        for form in self._spec.forms:
            if form.form is Form.EACH:
                each = replace(form, form=Form.INDEX)
                tensor = self._signature.inputs[form.name]
                pairs[form.name] = formed(each, ones(lists.values), tensor, self._size)
            else:
                pairs[form.name] = self._input(form, given)[rows]
        scores = self._model.run(pairs)[self._ranking.scores].reshape(-1)
        return self._columns(*best_of_each(lists, scores, self._rules.k, self._ranks))

    def _columns(self, best: Ragged, scores: npt.NDArray[Any]) -> dict[str, Any]:
        offsets = pa.array(best.offsets.astype(np.int32))
        ids = self._ranking.vocabulary.lookup(best.values)
        return {
            ITEMS: pa.ListArray.from_arrays(offsets, ids),
            SCORES: pa.ListArray.from_arrays(offsets, pa.array(scores)),
        }

    # -- what is blocked -------------------------------------------------------------------------

    def _seen(self, given: Mapping[str, Ragged]) -> npt.NDArray[np.int64]:
        """Row times size plus index of what each record has seen, where that is excluded."""
        if not self._rules.exclude_seen or self._ranking.seen is None:
            return np.empty(0, np.int64)
        seen = given[self._ranking.seen]
        keys: npt.NDArray[np.int64] = seen.rows * self._size + seen.values
        return keys

    def _blocked(self, given: Mapping[str, Ragged], rows: int) -> npt.NDArray[np.bool_]:
        """What must not be recommended, `[rows, size]`."""
        blocked = np.tile(self._rules.barred, (rows, 1))
        if self._ranking.candidates is not None:
            lists = given[self._ranking.candidates]
            others = ~lists.multi_hot(self._size, np.bool_)
            if lists.absent is not None:
                others &= ~lists.absent[:, None]
            blocked |= others
        blocked.reshape(-1)[self._seen(given)] = True
        return blocked

    def _is_blocked(
        self, given: Mapping[str, Ragged], indices: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Which of a graph's choice `[rows, chosen]` must not be recommended."""
        keys = np.arange(len(indices))[:, None] * self._size + indices
        return np.logical_or(self._rules.barred[indices], np.isin(keys, self._seen(given)))

    def _chosen(self, given: Mapping[str, Ragged]) -> int:
        """How many a graph must choose, so that k are left where it knows nothing of blocks."""
        count = self._rules.k
        if not self._blocks_itself:
            count += int(np.count_nonzero(self._rules.barred))
            if self._rules.exclude_seen and self._ranking.seen is not None:
                count += int(given[self._ranking.seen].lengths.max(initial=0))
        return min(count, self._size)

    # -- inputs ----------------------------------------------------------------------------------

    def _inputs(
        self,
        given: Mapping[str, Ragged],
        arrays: Mapping[str, npt.NDArray[Any]],
        blocked: npt.NDArray[np.bool_] | None,
    ) -> dict[str, npt.NDArray[Any]]:
        made = dict(arrays)
        for form in self._spec.forms:
            kind = NUMPY_TYPES[self._signature.inputs[form.name].kind]
            if form.form is Form.K:
                made[form.name] = np.array([self._chosen(given)], kind)
            elif form.form is Form.BLOCKED:
                assert blocked is not None
                made[form.name] = blocked.astype(kind, copy=False)
            else:
                made[form.name] = self._input(form, given)
        return made

    def _input(self, form: FormSpec, given: Mapping[str, Ragged]) -> npt.NDArray[Any]:
        assert form.ids is not None
        size = self._sizes[form.ids]
        return formed(form, given[form.ids], self._signature.inputs[form.name], size)

"""What the settings allow a model to recommend, read once by the driver."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Ranking
from pipeline.errors import ConfigInvalid, Mistake
from pipeline.ranking import Rules
from pipeline.vocabulary import UNKNOWN, Vocabulary


def read_rules(settings: Ranking, vocabulary: Vocabulary) -> Rules:
    """The rules for a model that ranks this vocabulary.

    Ids that the vocabulary lacks count for nothing: lists outlive a model's version. Raises
    ConfigInvalid where a list cannot be read, or nothing is left to recommend.
    """
    mistakes: list[Mistake] = []
    barred = np.arange(vocabulary.size) < vocabulary.first
    for name, path in (("allow", settings.allow), ("deny", settings.deny)):
        if path is not None:
            listed = _listed(f"ranking.{name}", path, vocabulary, mistakes)
            barred |= listed if name == "deny" else ~listed
    if barred.all() and not mistakes:
        problem = f"leaves none of the {len(vocabulary.ids):,} items of {vocabulary.name!r}"
        way_out = "Allow an item that the model knows, or deny fewer"
        mistakes.append(Mistake("ranking", None, problem, way_out))
    if mistakes:
        raise ConfigInvalid(mistakes)
    return Rules(settings.k, settings.exclude_seen, barred)


def _listed(
    setting: str, path: Path, vocabulary: Vocabulary, mistakes: list[Mistake]
) -> npt.NDArray[np.bool_]:
    """Which indices a file lists."""
    listed = np.zeros(vocabulary.size, np.bool_)
    try:
        lines = pa.array(path.read_text(encoding="utf-8").split(), pa.string())
        indices = vocabulary.indices(pc.cast(lines, vocabulary.ids.type))
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid) as failure:
        way_out = f"Name a text file with an id a line, each {vocabulary.ids.type}"
        mistakes.append(Mistake(setting, str(path), f"cannot be read: {failure}", way_out))
    else:
        listed[indices[indices != UNKNOWN]] = True
    return listed

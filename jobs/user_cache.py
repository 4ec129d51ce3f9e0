"""Folders of the user's cache that are made once and then kept."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return the cache's folder `name`; `make(folder)` makes it where it is not there yet.

    It appears whole or not at all, so two processes at once, or one that is interrupted, do no
    harm. `make` raises what it likes; the folder that it is given does not exist yet, and is
    renamed when it returns.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace"
    place = cache / name
    if place.is_dir():
        return place
    cache.mkdir(parents=True, exist_ok=True)
    # Beside its final place, because a rename is atomic within one file system only.
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as attempt:
        made = Path(attempt) / "made"
        make(made)
        try:
            made.rename(place)
        except OSError:
            if not place.is_dir():  # else another process was faster: its copy is as good
                raise
    return place

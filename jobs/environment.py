"""Environments of their own for programs whose packages do not belong beside ours.

Each is made once, in the user's cache, from a file that names every package down to the last.
"""

import hashlib
import sys
from pathlib import Path

from jobs.tools import run_quietly
from jobs.user_cache import made_once

INSTALL_SECONDS = 1_200.0


def python_of(name: str, pinned: Path) -> Path:
    """The Python of the environment `name` with the packages of `pinned`, made the first time.

    Raises ToolFailed.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    place = made_once(
        f"{name}-python{version}-{fingerprint(pinned)}", lambda folder: _install(pinned, folder)
    )
    return _python(place)


def fingerprint(file: Path) -> str:
    """The start of a file's SHA-256: another content has another environment."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _install(pinned: Path, folder: Path) -> None:
    # The folder is renamed afterwards, which the commands in its bin would not survive: so there
    # is none of pip, and programs are started with `python -m`.
    run_quietly([sys.executable, "-m", "venv", "--without-pip", str(folder)], INSTALL_SECONDS)
    # The file names every package, so that nothing is resolved anew.
    pip = [sys.executable, "-m", "pip", "--python", str(_python(folder)), "install", "--quiet"]
    options = ["--disable-pip-version-check", "--no-deps", "--requirement", str(pinned)]
    run_quietly([*pip, *options], INSTALL_SECONDS)


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"

"""An environment of its own for each peer, made once in the user's cache.

`requirements/` holds what a peer needs, pinned down to the last package: `PEER.txt` for pip, and
`PEER.pom.xml` for jars from Maven Central.
"""

import hashlib
import sys
from pathlib import Path

from jobs.kafka_jars import BrokerUnavailable, java
from jobs.maven import MavenFailed, copy_jars
from jobs.tools import ToolFailed, run_quietly
from jobs.user_cache import made_once

REQUIREMENTS = Path(__file__).parent / "requirements"
INSTALL_SECONDS = 1_200.0


class PeerUnavailable(RuntimeError):
    """A peer cannot take part on this machine; the message says what is missing."""


def python_of(peer: str) -> Path:
    """The Python of a peer's environment, which is made the first time (up to 1 GB).

    Raises PeerUnavailable.
    """
    pinned = REQUIREMENTS / f"{peer}.txt"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    place = made_once(
        f"peer-{peer}-python{version}-{fingerprint(pinned)}",
        lambda folder: _install(pinned, folder),
    )
    return _python(place)


def jars_of(peer: str) -> Path:
    """The folder of a peer's jars, which are fetched the first time. Raises PeerUnavailable."""
    try:
        java()
    except BrokerUnavailable as error:
        raise PeerUnavailable(f"{peer} needs Java 17 or newer") from error
    pom = REQUIREMENTS / f"{peer}.pom.xml"
    try:
        return made_once(
            f"peer-{peer}-jars-{fingerprint(pom)}", lambda folder: copy_jars(pom, folder)
        )
    except MavenFailed as error:
        raise PeerUnavailable(str(error)) from error


def fingerprint(file: Path) -> str:
    """The start of a file's SHA-256: another content has another environment."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _install(pinned: Path, folder: Path) -> None:
    # The folder is renamed afterwards, which the commands in its bin would not survive: so there
    # is none of pip, and programs are started with `python -m`.
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    python = str(_python(folder))
    # The file names every package, so that nothing is resolved anew.
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    _run([*pip, "--disable-pip-version-check", "--no-deps", "--requirement", str(pinned)])


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"


def _run(command: list[str]) -> None:
    try:
        run_quietly(command, INSTALL_SECONDS)
    except ToolFailed as error:
        raise PeerUnavailable(f"{' '.join(command)} failed: {error}") from error

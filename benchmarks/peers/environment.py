"""What each peer is installed from, made once in the user's cache.

`requirements/` holds what a peer needs, pinned down to the last package: `PEER.txt` for pip, and
`PEER.pom.xml` for jars from Maven Central.
"""

from pathlib import Path

from jobs import environment
from jobs.kafka_jars import BrokerUnavailable, java
from jobs.maven import MavenFailed, copy_jars
from jobs.tools import ToolFailed
from jobs.user_cache import made_once

REQUIREMENTS = Path(__file__).parent / "requirements"


class PeerUnavailable(RuntimeError):
    """A peer cannot take part on this machine; the message says what is missing."""


def python_of(peer: str) -> Path:
    """The Python of a peer's environment, which is made the first time (up to 1 GB).

    Raises PeerUnavailable.
    """
    try:
        return environment.python_of(f"peer-{peer}", REQUIREMENTS / f"{peer}.txt")
    except ToolFailed as error:
        raise PeerUnavailable(f"{peer} cannot be installed: {error}") from error


def jars_of(peer: str) -> Path:
    """The folder of a peer's jars, which are fetched the first time. Raises PeerUnavailable."""
    try:
        java()
    except BrokerUnavailable as error:
        raise PeerUnavailable(f"{peer} needs Java 17 or newer") from error
    pom = REQUIREMENTS / f"{peer}.pom.xml"
    try:
        return made_once(
            f"peer-{peer}-jars-{environment.fingerprint(pom)}",
            lambda folder: copy_jars(pom, folder),
        )
    except MavenFailed as error:
        raise PeerUnavailable(str(error)) from error

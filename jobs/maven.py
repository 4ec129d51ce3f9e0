"""Jars from Maven Central."""

import shutil
from pathlib import Path

from jobs.tools import ToolFailed, run_quietly

FETCH_SECONDS = 600.0


class MavenFailed(RuntimeError):
    """Maven is missing or could not fetch; the message says why."""


def copy_jars(pom: Path, folder: Path) -> None:
    """Fetch the runtime dependencies of a `pom.xml` into a folder; raises MavenFailed."""
    maven = shutil.which("mvn")
    if maven is None:
        raise MavenFailed(
            f"no mvn in PATH, and the jars of {pom} are not fetched yet: install Maven once"
        )
    command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
    command += [f"-DoutputDirectory={folder}", "-DincludeScope=runtime"]
    try:
        run_quietly(command, FETCH_SECONDS)
    except ToolFailed as error:
        raise MavenFailed(f"Maven could not fetch the jars of {pom}: {error}") from error

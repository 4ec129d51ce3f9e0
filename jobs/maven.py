"""Jars from Maven Central."""

import shutil
import subprocess
from pathlib import Path

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
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=FETCH_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        last = "\n".join(error.stdout.splitlines()[-10:])
        raise MavenFailed(
            f"Maven could not fetch the jars of {pom} (exit {error.returncode}): {last}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise MavenFailed(
            f"Maven did not fetch the jars of {pom} within {FETCH_SECONDS:.0f} s"
        ) from error

"""Other people's programs, run quietly."""

import subprocess
from collections.abc import Sequence

LOG_LINES = 10


class ToolFailed(RuntimeError):
    """A program failed or took too long; the message says how, with its last lines."""


def run_quietly(command: Sequence[str], seconds: float) -> None:
    """Run a program to its end. Raises ToolFailed."""
    try:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=seconds,
        )
    except subprocess.CalledProcessError as error:
        last = "\n".join(error.stdout.splitlines()[-LOG_LINES:])
        raise ToolFailed(f"exit code {error.returncode}: {last}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolFailed(f"no end within {seconds:.0f} s") from error

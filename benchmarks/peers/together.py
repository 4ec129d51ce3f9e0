"""Several processes as one: they are stopped together, and one that fails ends them all."""

import signal
import subprocess
import threading
from collections.abc import Callable, Sequence

LOOK_SECONDS = 0.2


def together(commands: Sequence[Sequence[str]], done: Callable[[], bool] = lambda: False) -> int:
    """Run the commands until all have ended, or stop them with SIGTERM once `done` says so.

    Returns the exit code of the first that failed, 0 where none did.
    """
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    processes = [subprocess.Popen(command) for command in commands]
    while not stopping.wait(LOOK_SECONDS):
        codes = [process.poll() for process in processes]
        if None not in codes or any(codes) or done():
            break
    for process in processes:
        process.terminate()
    return next((code for code in [process.wait() for process in processes] if code), 0)

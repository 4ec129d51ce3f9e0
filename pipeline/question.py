"""What the driver asks the cluster again and again, without waiting for the answer."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from pipeline.ports import Background

T = TypeVar("T")


class Question(Generic[T]):
    """One question, asked every `seconds` from `due` on and never while it is out.

    Used by the driver's thread. A cluster that is in trouble may answer late, and a driver that
    waits for it gives no orders, and takes its own silence for that of its feeders.
    """

    def __init__(
        self, ask: Callable[[], T], seconds: float, due: float, background: Background
    ) -> None:
        self._ask = ask
        self._seconds = seconds
        self._due = due
        self._background = background
        self._out: Future[T] | None = None

    def answer(self, now: float) -> T | None:
        """The answer that has come, None without a new one. Raises what asking raised."""
        if self._out is None and now >= self._due:
            self._due = now + self._seconds
            self._out = self._background(self._ask)
        if self._out is None or not self._out.done():
            return None
        out, self._out = self._out, None
        return out.result()

"""Produces the demo's events: a burst that waits for the job, then a steady stream beside it."""

import itertools
import threading
import time
from collections.abc import Iterator, Mapping
from typing import cast

from jobs.demo.workload import Broken, Event, Workload
from pipeline.errors import HeadraceError
from pipeline.produce import produce, refuse_failures

# Longer than Ray takes to start and to score the burst on a slow machine.
WAIT_SECONDS = 240.0


class Feed:
    """Owns the producing thread; `produced` counts records, broken ones included."""

    def __init__(
        self,
        workload: Workload,
        settings: Mapping[str, str],
        topic: str,
        *,
        records: int,
        burst: int,
        rate: float,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._events = workload.events(records)
        self._broken = workload.broken()
        self._steady_records = records - burst
        self.burst = burst
        self.rate = rate
        self.expected = records + len(self._broken)
        self.produced = 0
        self.steady_since: float | None = None
        self.failure: HeadraceError | None = None
        self._go = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._steady, name="feed", daemon=True)

    def fill(self) -> None:
        """Produce the burst as fast as it goes, then start the thread that waits for `go`."""
        self._send(itertools.islice(self._events, self.burst), None)
        self._thread.start()

    def go(self) -> None:
        """Let the steady stream begin."""
        self._go.set()

    def stop(self) -> None:
        """End early, and wait until the thread has ended."""
        self._stopped.set()
        self._go.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def done(self) -> bool:
        """Whether everything is produced, or never will be."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def _steady(self) -> None:
        self._go.wait(WAIT_SECONDS)
        self.steady_since = time.time()
        try:
            self._send(_mixed(self._events, self._broken, self._steady_records), self.rate)
        except HeadraceError as problem:
            self.failure = problem

    def _send(self, events: Iterator[Event], rate: float | None) -> None:
        before = self.produced

        def count(sent: int, _: float) -> None:
            self.produced = before + sent

        summary = produce(
            events, self._settings, self._topic, rate, count, stopping=self._stopped.is_set
        )
        refuse_failures(summary, self._topic)


def _mixed(events: Iterator[Event], broken: tuple[Broken, ...], count: int) -> Iterator[Event]:
    """The events with the broken ones among them at even distances."""
    distance = max(1, count // (len(broken) + 1))
    # `produce` passes a tombstone on, though its records are declared to have values.
    waiting = iter([cast(Event, (one.key, one.value)) for one in broken])
    for number, event in enumerate(events, 1):
        yield event
        if number % distance == 0:
            yield from itertools.islice(waiting, 1)
    yield from waiting

"""What the demo shows: on a terminal a live panel, elsewhere plain lines.

Python's, Ray's and librdkafka's own lines go to a log file meanwhile.
"""

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pipeline.status import Status

BARS = " ▁▂▃▄▅▆▇█"
WIDTH = 100
# The width of the panel's lag line, one bar for each status.
BARS_SHOWN = 56
PLAIN_SECONDS = 2.0
REFRESH_PER_SECOND = 8


@contextmanager
def console_beside(log: Path) -> Iterator[Console]:
    """A console on the real standard output, while descriptors 1 and 2 write to `log`.

    By descriptor, because Ray's processes and C++ libraries write past `sys.stdout`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    with log.open("wb") as file, os.fdopen(kept[0], "w", closefd=False) as real:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        try:
            terminal = real.isatty()
            yield Console(file=real, width=None if terminal else WIDTH, highlight=False)
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in enumerate(kept, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)


class Screen:
    """Shows one run; owned by the main thread. `expected` is how many records there will be."""

    def __init__(self, console: Console, expected: int) -> None:
        self.console = console
        self._expected = expected
        self._began = self._stepped_at = time.monotonic()
        self._status: Status | None = None
        self._produced = self._lag = 0
        self._phase = ""
        self._live: Live | None = None
        self._lags: deque[int] = deque(maxlen=BARS_SHOWN)
        self._lined_at = float("-inf")

    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._began

    def done(self, what: str) -> None:
        """Say that a step is done, and how long it took since the last one."""
        now = time.monotonic()
        took, self._stepped_at = now - self._stepped_at, now
        text = Text.assemble(("✓ ", "green"), what, (f"  {took:.1f} s", "dim"))
        self.console.print(text, soft_wrap=not self.console.is_terminal)

    @contextmanager
    def running(self, phase: str) -> Iterator[None]:
        """Show the run until it ends."""
        self._phase = phase
        if not self.console.is_terminal:
            self.console.print(f"… {phase}")
            yield
            return
        with Live(
            console=self.console,
            get_renderable=self._panel,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            # What others print belongs into the log.
            redirect_stdout=False,
            redirect_stderr=False,
        ) as self._live:
            yield

    def show(self, status: Status, produced: int, phase: str) -> None:
        """Take the newest status in, and what the demo is at."""
        changed, self._phase = phase != self._phase, phase
        self._status, self._produced = status, produced
        # Until every feeder has reported the run knows a part of the lag only.
        starting = status.state == "starting"
        self._lag = max(0, produced - status.records_in) if starting else status.lag
        self._lags.append(self._lag)
        if self.console.is_terminal:
            return
        if changed or time.monotonic() - self._lined_at >= PLAIN_SECONDS:
            self._lined_at = time.monotonic()
            line = f"{self.seconds():5.1f} s  {self._line(status)}"
            self.console.print(line, soft_wrap=True)

    def _line(self, status: Status) -> str:
        return (
            f"{status.records_in:>7,} of {self._expected:,} scored · "
            f"{status.records_per_second:>6,.0f}/s · lag {self._lag:>6,} · "
            f"{ready(status)} replicas · {sum(status.dead_letters.values())} dead · {self._phase}"
        )

    def _panel(self) -> RenderableType:
        spinner = Spinner("dots", Text(f" {self._phase}", style="bold"))
        clock = Text(f"{self.seconds():.0f} s", style="dim", justify="right")
        head = Table.grid(expand=True)
        head.add_column(ratio=1)
        head.add_column()
        head.add_row(spinner, clock)
        rows: list[RenderableType] = [head]
        if self._status is not None:
            rows += [Text(), self._figures(self._status)]
        width = min(WIDTH, self.console.width)
        return Panel(Group(*rows), border_style="cyan", padding=(0, 1), width=width)

    def _figures(self, status: Status) -> Table:
        dead = sum(status.dead_letters.values())
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column()
        table.add_row("produced", self._bar(self._produced, "yellow"))
        table.add_row("scored", self._bar(status.records_in, "green"))
        table.add_row("lag", Text(sparkline(self._lags), style="magenta"))
        table.add_row("", f"{self._lag:,} records, {status.time_lag:.1f} s")
        table.add_row("rate", f"{status.records_per_second:,.0f} records/s")
        table.add_row("replicas", f"{ready(status)} ready of {len(status.replicas)}")
        table.add_row("dead letters", Text(f"{dead}", style="red" if dead else ""))
        pending = status.archive.pending_rows
        table.add_row("in Parquet", f"{status.archive.rows:,} rows, {pending:,} on their way")
        return table

    def _bar(self, count: int, style: str) -> Table:
        bar = ProgressBar(self._expected, count, width=40, complete_style=style)
        row = Table.grid(padding=(0, 2))
        row.add_row(bar, f"{count:,} of {self._expected:,}")
        return row


def ready(status: Status) -> int:
    """How many replicas can score now."""
    return sum(1 for replica in status.replicas if replica.state == "ready")


def sparkline(values: Sequence[int]) -> str:
    """One bar a value, the highest one full."""
    top = max(values, default=0)
    return "".join(BARS[-(-value * (len(BARS) - 1) // top)] if top else BARS[0] for value in values)

"""The demo's first and last words: what will happen, and what came of it."""

import os
import subprocess
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from jobs.demo.figures import PERCENTILES, Figures
from jobs.demo.screen import WIDTH
from jobs.demo.workload import DemoFailed, Verdict, Workload

EXAMPLE_SECONDS = 60.0
EXAMPLE_ROWS = 3


def header(console: Console, workload: Workload) -> None:
    """What the demo is about to show."""
    console.print(
        Panel(
            workload.story,
            title=f"[bold]headrace demo: {workload.title}",
            border_style="cyan",
            padding=(1, 2),
            width=_width(console),
        )
    )


def results(console: Console, figures: Figures, rate: float) -> None:
    """Counts, throughput, latency and dead letters."""
    counts = _table(console, "What came of it")
    counts.add_column(style="dim")
    counts.add_column()
    counts.show_header = False
    rows = f"{figures.records:,}"
    counts.add_row("each record once", f"{rows} predictions in Kafka, the same {rows} in Parquet")
    counts.add_row("throughput", _speed(figures.throughput))
    console.print(counts)
    latencies = _table(console, f"Latency of each record at a steady {rate:,.0f} records/s")
    latencies.add_column("from when it was produced")
    for percentile in PERCENTILES:
        latencies.add_column(f"p{percentile}", justify="right")
    for latency in figures.latencies:
        latencies.add_row(latency.what, *(f"{value:,.0f} ms" for value in latency.milliseconds))
    console.print(latencies)
    letters = _table(
        console, f"Dead letters: {len(figures.letters)}, all of them broken on purpose by this demo"
    )
    for column in ("what was sent", "stage", "reason"):
        letters.add_column(column)
    for broken, letter in figures.letters:
        letters.add_row(broken.what, letter.stage, f"{letter.exception}: {letter.message}")
    console.print(letters)


def _speed(throughput: float | None) -> str:
    if throughput is None:
        return "not measured: too few records were waiting"
    return (
        f"[bold green]{throughput:,.0f} records/s[/] while catching up, with "
        f"{os.cpu_count()} cores for broker, job and demo"
    )


def quality(console: Console, verdict: Verdict | None) -> None:
    """How good the scores are, beside published figures."""
    if verdict is None:
        console.print("\nToo few records to judge the scores: leave --records out for that.")
        return
    table = _table(console, verdict.title)
    table.add_column(verdict.columns[0])
    for column in verdict.columns[1:]:
        table.add_column(column, justify="right")
    for number, row in enumerate(verdict.rows):
        table.add_row(*row, style="bold green" if number == 0 else "")
    console.print(table)
    for remark in verdict.remarks:
        console.print(Text(f"  {remark}", style="dim"))
    for listing in verdict.listings:
        cases = _table(console, listing.title)
        for column in listing.columns:
            cases.add_column(column, ratio=1)
        for row in listing.rows:
            cases.add_row(*row)
        console.print(cases)


def examples(workload: Workload, folder: Path) -> dict[str, str]:
    """Short Python programs, by library, that read the Parquet under `folder`."""
    listed = ", ".join(f'"{column}"' for column in workload.columns)
    return {
        "pyarrow": f"""\
import pyarrow.dataset as ds
columns = [{listed}]
rows = ds.dataset("{folder}").head({EXAMPLE_ROWS}, columns=columns)
print(*rows.to_pylist(), sep="\\n")""",
        "DuckDB": f"""\
import duckdb
print(duckdb.sql('''
    select {", ".join(workload.columns)} from "{folder}/**/*.parquet"
    order by {workload.highest} desc limit {EXAMPLE_ROWS}
'''))""",
    }


def reading(console: Console, workload: Workload, folder: Path) -> None:
    """Show programs that read the Parquet, with what they really print.

    Raises DemoFailed where one of them does not work.
    """
    console.print(Text("\nRead it yourself", style="bold"))
    for program in examples(workload, folder).values():
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=EXAMPLE_SECONDS,
            check=False,
        )
        if done.returncode:
            raise DemoFailed(f"this does not read the Parquet:\n{program}\n{done.stderr}")
        code = Syntax("", "python", background_color="default").highlight(program)
        console.print()
        console.print(code, soft_wrap=True, end="")
        console.print(Text(done.stdout.rstrip(), style="dim"), soft_wrap=True)


def places(console: Console, made: dict[str, Path], seconds: float) -> None:
    """Where everything is, one path a line, never wrapped."""
    console.print()
    for name, path in made.items():
        line = Text.assemble((f"{name:<8} ", "cyan"), str(shown(path)))
        console.print(line, soft_wrap=True)
    console.print(f"\n[green]✓[/] done in {seconds:.0f} s")


def shown(path: Path) -> Path:
    """The path as a person would type it from here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _table(console: Console, title: str) -> Table:
    return Table(
        title=f"\n[bold]{title}",
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        width=_width(console),
    )


def _width(console: Console) -> int:
    return min(WIDTH, console.width)

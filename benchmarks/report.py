"""The figures as a table in the terminal, as Markdown and as a picture."""

import importlib.metadata
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.contender import Contender
from benchmarks.latency import Latency
from benchmarks.trial import Measured

COLUMNS = (
    "contender",
    "guarantee",
    "records/s",
    "range",
    "ratio",
    "CPU µs/record",
    "by process",
    "¢ per million",
    "broker µs",
    "peak MiB (RSS)",
    "peak MiB (PSS)",
    "first after s",
    "p50 ms",
    "p99 ms",
)
# What a core costs for an hour, about as clouds charge for one of a small machine on demand.
DOLLARS_PER_CORE_HOUR = 0.04
PACKAGES = ("ray", "onnxruntime", "confluent-kafka", "pyarrow", "msgspec", "numpy")
MIB = 1 << 20
NONE = "-"


@dataclass(frozen=True, slots=True)
class Results:
    """All that was measured: runs by contender and repetition, and why what is missing failed."""

    contenders: Sequence[Contender]
    runs: Mapping[str, Mapping[int, Measured]]
    latencies: Mapping[str, Latency]
    failed: Mapping[str, str]
    records: int
    broker: str
    command: str


def rows(results: Results) -> list[tuple[str, ...]]:
    """The table's cells, one row for each contender that has a run: medians over its runs.

    A ratio is the median of the ratios to the first contender's run of the same repetition.
    """
    base = results.runs[results.contenders[0].name]
    return [_row(one, results, base) for one in measured_contenders(results)]


def measured_contenders(results: Results) -> list[Contender]:
    """Those that have a run."""
    return [one for one in results.contenders if results.runs[one.name]]


def cents_per_million(micros: float) -> float:
    """What a million records cost that take this many µs of CPU each."""
    # µs a record are seconds a million records.
    return micros / 3600 * DOLLARS_PER_CORE_HOUR * 100


def _row(contender: Contender, results: Results, base: Mapping[int, Measured]) -> tuple[str, ...]:
    found = results.runs[contender.name]
    runs = list(found.values())
    rates = [run.rate for run in runs]
    ratios = [found[number].rate / base[number].rate for number in found.keys() & base.keys()]
    total = statistics.median(run.total for run in runs)
    kinds = {kind: None for run in runs for kind in run.cpu}
    medians = {kind: statistics.median(run.cpu.get(kind, 0.0) for run in runs) for kind in kinds}
    shown = sorted(medians.items(), key=lambda item: -item[1])
    brokers = [run.broker for run in runs if run.broker is not None]
    pss = statistics.median(run.memory.pss for run in runs)
    latency = results.latencies.get(contender.name)
    return (
        contender.name,
        contender.promise,
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        f"{statistics.median(ratios):.2f}" if ratios else NONE,
        f"{total:.1f}",
        ", ".join(f"{kind} {micros:.1f}" for kind, micros in shown),
        f"{cents_per_million(total):.4f}",
        f"{statistics.median(brokers):.1f}" if brokers else NONE,
        f"{contender.memory_of} {statistics.median(run.memory.rss for run in runs) / MIB:,.0f}",
        f"{pss / MIB:,.0f}" if pss else NONE,
        f"{statistics.median(run.first for run in runs):.1f}",
        f"{latency.p50:.1f}" if latency else NONE,
        f"{latency.p99:.1f}" if latency else NONE,
    )


def show(results: Results) -> None:
    """Print the table, as wide as it needs."""
    table = Table(*COLUMNS, title=f"{results.records:,} records")
    for row in rows(results):
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)


def write(results: Results, folder: Path, suffix: str) -> Path:
    """Write `results{suffix}.md` and `.png` into a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"results{suffix}.md"
    picture = page.with_suffix(".png")
    page.write_text(markdown(results, picture.name), encoding="utf-8")
    _draw(results, picture)
    return page


def markdown(results: Results, picture: str) -> str:
    """The page, which shows the picture of this name."""
    repeats = max(len(runs) for runs in results.runs.values())
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    lines = [
        "# Results",
        "",
        f"Written by `{results.command}`; benchmarks/README.md says what is measured and how.",
        "",
        f"{results.records:,} records; medians of {repeats} interleaved run(s) each. "
        + _latency_note(results)
        + " Cents are for CPU without the broker's, at an assumed "
        + f"${DOLLARS_PER_CORE_HOUR:.2f} a core-hour.",
        "",
        f"- machine: {_machine()}",
        f"- versions: Python {platform.python_version()}, {', '.join(versions)}",
        f"- broker: {results.broker}",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(row) + " |" for row in rows(results)),
        "",
        *(f"- {name} failed: {_first_line(why)}" for name, why in results.failed.items()),
        *([""] if results.failed else []),
        f"![records per second]({picture})",
        "",
    ]
    return "\n".join(lines)


def _first_line(text: str) -> str:
    return text.partition("\n")[0].rstrip(":;")


def _latency_note(results: Results) -> str:
    if not results.latencies:
        return "Latency was not measured."
    rate = next(iter(results.latencies.values())).rate
    return f"Latency at {rate:,.0f} events/s, a tenth of what {results.contenders[0].name} scores."


def _machine() -> str:
    memory = psutil.virtual_memory().total / (1 << 30)
    return (
        f"{_processor()}, {os.cpu_count()} cores for everything, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}"
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _draw(results: Results, file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    shown = measured_contenders(results)
    names = [f"{one.name}\n({one.promise})" for one in shown]
    runs = [[run.rate for run in results.runs[one.name].values()] for one in shown]
    middle = [statistics.median(rates) for rates in runs]
    spread = [
        [value - min(rates) for value, rates in zip(middle, runs, strict=True)],
        [max(rates) - value for value, rates in zip(middle, runs, strict=True)],
    ]
    figure, axes = pyplot.subplots(figsize=(9, 0.8 + 0.7 * len(names)))
    bars = axes.barh(names, middle, xerr=spread, capsize=3, color="#4878a8")
    axes.bar_label(bars, [f"{value:,.0f}" for value in middle], label_type="center", color="white")
    axes.invert_yaxis()
    axes.set_xlabel("records/s (median; whiskers: slowest and fastest run)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120, bbox_inches="tight")
    pyplot.close(figure)

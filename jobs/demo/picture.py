"""The demo's picture: how good the scores are, and how the lag went."""

from pathlib import Path
from typing import Any

import numpy as np

from jobs.demo.figures import Lag
from jobs.demo.workload import Verdict

INK = "#1f2937"
STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlepad": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.axisbelow": True,
}


def draw(
    path: Path, title: str, lag: Lag, throughput: float | None, verdict: Verdict | None
) -> None:
    """Write a PNG with the verdict's drawing, where there is one, beside the lag over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context(STYLE):
        panels = 1 if verdict is None else 2
        figure, axes = pyplot.subplots(
            1, panels, figsize=(6.6 * panels, 4.8), layout="constrained", squeeze=False
        )
        if verdict is not None:
            verdict.draw(axes[0][0])
        _draw_lag(axes[0][-1], lag, throughput)
        figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
        figure.savefig(path, dpi=130)
        pyplot.close(figure)


def _draw_lag(axes: Any, lag: Lag, throughput: float | None) -> None:
    """Records waiting at each moment: the backlog, the catch-up, the steady part."""
    axes.fill_between(lag.seconds, lag.records, step="post", color="#059669", alpha=0.12)
    axes.step(lag.seconds, lag.records, where="post", color="#059669", linewidth=2)
    top, end = float(lag.records.max()), float(lag.seconds[-1])
    axes.set(xlim=(0, end), ylim=(0, top * 1.18))
    axes.set(xlabel="seconds since the first record", ylabel="records waiting")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title("Lag: a backlog, then a steady stream")
    caught_up = float(lag.seconds[lag.seconds < lag.steady_from].max())
    waiting = float(np.median(lag.records[lag.seconds >= lag.steady_from]))
    axes.annotate(
        f"{top:,.0f} records wait\nwhile Ray starts",
        (caught_up * 0.42, top),
        (0, 6),
        textcoords="offset points",
        ha="center",
    )
    if throughput is not None:
        axes.annotate(
            f"caught up at\n{throughput:,.0f}/s",
            (lag.steady_from, top * 0.5),
            (8, 0),
            textcoords="offset points",
            va="center",
            color="#059669",
            fontweight="bold",
        )
    axes.axvline(lag.steady_from, color="#9ca3af", linestyle="--", linewidth=1)
    axes.annotate(
        f"steady stream:\nabout {waiting:,.0f} wait",
        (lag.steady_from, max(top * 0.15, waiting * 3)),
        (8, 0),
        textcoords="offset points",
        va="center",
        color="#6b7280",
    )

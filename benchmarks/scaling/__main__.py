"""`python -m benchmarks.scaling`: how well each policy scales, as a table and a picture."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.scaling import picture
from benchmarks.scaling.contest import Row, contest
from benchmarks.scaling.traces import Trace, all_traces, read, unseen_traces

HERE = Path(__file__).parent
SHORT_SECONDS = 900
SHORT_TRACES = ("azure_llm", "step")
COLUMNS = (
    "policy",
    "setting",
    "traces over 0.1 %",
    "time over",
    "cost / optimum",
    "actions/h",
    "mean lag s",
    "worst lag s",
)


def table(rows: list[Row], traces: list[Trace], command: str) -> str:
    """The results as Markdown: one table for each scenario, means over the traces."""
    names = ", ".join(trace.name for trace in traces)
    lines = ["# Scaling, results", "", f"`{command}`. Traces: {names}.", ""]
    for scenario in dict.fromkeys(row.scenario for row in rows):
        lines += [f"## {scenario}", "", _line(COLUMNS), _line(["---"] * len(COLUMNS))]
        lines += [_line(_cells(row)) for row in rows if row.scenario == scenario]
        lines.append("")
    lines += ["## Headrace by trace", "", _line(("scenario", "trace", *COLUMNS[3:]))]
    lines.append(_line(["---"] * (len(COLUMNS) - 1)))
    for row in rows:
        if row.setting == "one for all":
            for trace, score in zip(traces, row.scores, strict=True):
                single = Row(row.scenario, row.policy, row.setting, (score,))
                lines.append(
                    _line([f"{row.policy}, {row.scenario}", trace.name, *_cells(single)[3:]])
                )
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row) -> list[str]:
    return [
        row.policy,
        row.setting,
        f"{row.failed} of {len(row.scores)}",
        f"{100 * row.mean('over'):.3f} %",
        f"{row.mean('cost'):.3f}",
        f"{row.mean('actions_per_hour'):.1f}",
        f"{row.mean('mean_lag'):.1f}",
        f"{max(score.worst_lag for score in row.scores):.0f}",
    ]


def main(arguments: list[str]) -> int:
    """Run the contest and write `results.md` and `results.png`, or `unseen.md`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="a quarter of an hour of two traces: does it all work?"
    )
    parser.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="one more policy: a function like pipeline.scale.decide, with any memory of its own",
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--unseen",
        action="store_true",
        help="take traces on which nothing was tuned, and write unseen.md",
    )
    chosen.add_argument(
        "--trace",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.csv",
        help="take this trace, of columns seconds and records_per_second, in place of ours",
    )
    parser.add_argument("--ours-only", action="store_true", help="leave the others out")
    parser.add_argument("--output", type=Path, default=HERE, help="the folder of the results")
    options = parser.parse_args(arguments)
    if options.unseen:
        traces = unseen_traces()
    else:
        traces = [read(path) for path in options.trace] or all_traces()
    if options.short:
        ours = not (options.trace or options.unseen)
        traces = [t.first(SHORT_SECONDS) for t in traces if not ours or t.name in SHORT_TRACES]
    rows = contest(traces, options.policy, peers=not options.ours_only)
    text = table(rows, traces, " ".join(["python -m benchmarks.scaling", *arguments]))
    options.output.mkdir(parents=True, exist_ok=True)
    name = "unseen" if options.unseen else "results"
    (options.output / f"{name}.md").write_text(text, encoding="utf-8")
    if not options.unseen:
        picture.draw(traces, options.output / "results.png")
    print(text)
    return 0


if __name__ == "__main__":
    # What `--policy` names may lie in the current directory.
    sys.path.insert(0, str(Path.cwd()))
    raise SystemExit(main(sys.argv[1:]))

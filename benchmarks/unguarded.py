"""The bare loop as a contender."""

import sys

from benchmarks.contender import Contender, Run


def bare_loop(module: str) -> Contender:
    """One hand-written process, and no guarantee."""

    def command(run: Run) -> list[str]:
        return _command(module, run)

    return Contender(
        name="bare loop",
        guarantee="none",
        command=command,
        kind=lambda _: "loop",
        memory_of="loop",
    )


def _command(module: str, run: Run) -> list[str]:
    arguments = {
        "--bootstrap": run.bootstrap,
        "--group": run.name,
        "--events": run.events,
        "--predictions": run.predictions,
        "--parquet": str(run.parquet),
        "--model": str(run.model / "1" / "model.onnx"),
    }
    if run.records is not None:
        arguments["--records"] = str(run.records)
    pairs = [text for pair in arguments.items() for text in pair]
    return [sys.executable, "-m", module, *pairs]

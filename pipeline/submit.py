"""`headrace submit`: a run as a Ray job."""

import shlex
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigInvalid, Mistake
from pipeline.settings import DIRECTORY, load

# Ray leaves 3 s between SIGTERM and SIGKILL, and a run needs up to 120 s to drain.
STOP_SECONDS = 150
# What a run does not read, beside what .gitignore names, which Ray leaves out by itself.
EXCLUDES = (
    ".git/",
    ".venv/",
    "venv/",
    "out/",
    "build/",
    "dist/",
    ".mypy_cache/",
    ".ruff_cache/",
    ".pytest_cache/",
    ".hypothesis/",
    "__pycache__/",
)


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that a cluster has taken; `wait` follows its log and returns its exit code."""

    id: str
    wait: Callable[[Callable[[str], object]], int]


def submit(
    path: Path,
    address: str,
    environ: Mapping[str, str],
    pass_along: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> Submitted:
    """Run the job of the file on the cluster whose dashboard is at `address`.

    The current directory goes along, and the variables of `environ` that `pass_along` names and
    no others; `flags` are those of `headrace run`. A relative output.parquet starts here, as it
    does without Ray.
    Raises ConfigInvalid with every mistake, ClusterUnfit where the cluster does not take the job.
    """
    from pipeline.edges.ray_jobs import RayJobs

    here = Path.cwd()
    # Resolved, as `..` and links may lead out of what goes along.
    file = path.resolve()
    mistakes = []
    if not file.is_relative_to(here):
        problem = "lies outside of the current directory, which is what goes to the cluster"
        mistakes.append(Mistake("config", str(path), problem, "Run this in a folder above it"))
    mistakes += [
        Mistake("--env", name, "is not set here", f"Set it, or leave --env {name} out")
        for name in pass_along
        if name not in environ
    ]
    if mistakes:
        raise ConfigInvalid(mistakes)
    config = load(path, {**environ, DIRECTORY: str(here)})
    excludes = list(EXCLUDES)
    if config.output.parquet.is_relative_to(here) and config.output.parquet != here:
        excludes.append(f"/{config.output.parquet.relative_to(here)}/")
    relative = str(file.relative_to(here))
    # `exec`, so that Ray's signal reaches the run and no shell before it.
    entrypoint = shlex.join(["exec", "python", "-m", "pipeline.cli", "run", relative, *flags])
    environment = {
        **{name: environ[name] for name in pass_along},
        DIRECTORY: str(here),
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
    }
    jobs = RayJobs(address)
    job_id = jobs.submit(
        entrypoint=entrypoint,
        name=f"headrace-{config.job}-{uuid.uuid4().hex[:8]}",
        folder=str(here),
        excludes=excludes,
        environment=environment,
    )

    def wait(show: Callable[[str], object]) -> int:
        ended = jobs.follow(job_id, show)
        return 1 if ended.exit_code is None else ended.exit_code

    return Submitted(job_id, wait)

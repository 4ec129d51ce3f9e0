"""One run from its config to its summary; what `headrace run` and `python -m jobs.fraud` call."""

import logging
import os
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from math import ceil

from pipeline import scale, wire
from pipeline import status as statuses
from pipeline.config import Config
from pipeline.errors import AnotherRunTookOver, Fenced, OutcomeUnknown, Retriable
from pipeline.job import Job, prepare
from pipeline.run import Driver, Work
from pipeline.scale import Decide
from pipeline.signals import stop_signals
from pipeline.status import Status

log = logging.getLogger("headrace")

PROGRESS_SECONDS = 5.0
# Feeders and the archiver ask for no CPU of their own; a local Ray must still hold them all.
SPARE_CPUS = 2
START_ATTEMPTS = 5


def run_job(
    config: Config,
    address: str | None = None,
    *,
    until_caught_up: bool = False,
    watch: Callable[[Status], None] | None = None,
    stopping: Callable[[], bool] | None = None,
    decide: Decide = scale.decide,
) -> Status:
    """Run one job; `watch` is given each status on its way. Returns the last status.

    `stopping` is asked now and then and drains the run once it says True; without it SIGTERM and
    Ctrl-C do so. `decide` changes the number of replicas where the config allows it. Raises the
    errors of `pipeline.errors` that end a run.
    """
    from pipeline.edges.prometheus import Exporter
    from pipeline.edges.ray import RayBoard, RayCluster

    job = prepare(config)
    most = max(config.replicas.count, config.replicas.max_replicas or 0)
    cpus = ceil((most + config.replicas.cpu_replicas) * config.replicas.cpus)
    with (
        closing(Exporter(config.metrics.host, config.metrics.port)) as exporter,
        closing(RayCluster(address, cpus + (os.cpu_count() or 1) + SPARE_CPUS)) as cluster,
    ):
        board = RayBoard(config.job)
        progress = _Progress()

        def show(status: Status) -> None:
            board.put(statuses.encode(status))
            exporter.show(status)
            progress.show(status)
            if watch is not None:
                watch(status)

        with nullcontext(stopping) if stopping else stop_signals() as asked:
            work = _assembled(
                job, cluster, until_caught_up=until_caught_up, show=show, decide=decide
            )
            status = Driver(work, asked).run()
        log.info("%s", statuses.line(status))
        return status


def _assembled(
    job: Job,
    cluster: object,
    *,
    until_caught_up: bool,
    show: Callable[[Status], None],
    decide: Decide,
) -> Work:
    """Assemble, again after a pause where the broker was not ready for it."""
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            return wire.assemble(
                job, cluster, until_caught_up=until_caught_up, show=show, decide=decide
            )
        except Fenced as problem:
            raise AnotherRunTookOver(
                f"another run of job {job.config.job} started at the same moment ({problem})"
            ) from problem
        except (OutcomeUnknown, Retriable) as problem:
            if attempt == START_ATTEMPTS:
                raise
            log.warning("the start is tried again: %s", problem)
            time.sleep(attempt)
    raise AssertionError


class _Progress:
    """Logs a line now and then; owned by the driver's thread."""

    def __init__(self) -> None:
        self._at = 0.0

    def show(self, status: Status) -> None:
        if time.monotonic() - self._at >= PROGRESS_SECONDS:
            self._at = time.monotonic()
            log.info("%s", statuses.line(status))

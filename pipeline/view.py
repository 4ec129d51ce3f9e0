"""`headrace status`: how a job stands, from Kafka's offsets and, where it runs, from its board."""

import time
from collections.abc import Mapping

import msgspec

from pipeline import status as statuses
from pipeline.batch import Partition
from pipeline.config import Config
from pipeline.errors import ClusterUnfit


class Offsets(msgspec.Struct, frozen=True):
    """One input partition as Kafka holds it; null offsets are of a partition never committed."""

    partition: int
    committed: int | None
    end: int
    lag: int | None


class View(msgspec.Struct, frozen=True):
    """What `headrace status --json` prints, as one object; times are seconds since the epoch.

    `run` is what the running driver shows (`pipeline.status.Status`), null where none was found,
    and `note` says why. `lag` is null while a partition was never committed.
    """

    job: str
    at: float
    topic: str
    group: str
    lag: int | None
    partitions: list[Offsets]
    run: statuses.Status | None
    note: str


def view(config: Config, board: "Board") -> View:
    """How the job stands now. Raises ClusterUnfit where topics are missing, Retriable."""
    from pipeline.edges.kafka.admin import KafkaAdmin, require

    admin = KafkaAdmin(config.kafka)
    name = config.input.topic
    topic = require(admin.topics([name]), name, "input.topic")
    ends = admin.ends([Partition(name, number) for number in range(topic.partitions)])
    stored = admin.committed(config.group, name)
    offsets = []
    for partition, end in sorted(ends.items()):
        at = stored[partition].offset if partition in stored else None
        lag = None if at is None else max(0, end - at)
        offsets.append(Offsets(partition.number, at, end, lag))
    known = [one.lag for one in offsets if one.lag is not None]
    run, note = board.read(config.job)
    return View(
        job=config.job,
        at=time.time(),
        topic=name,
        group=config.group,
        lag=sum(known) if len(known) == len(offsets) else None,
        partitions=offsets,
        run=run,
        note=note,
    )


class Board:
    """The connection to the Ray cluster where the job may run; one for each process.

    `address` is what the user named, else RAY_ADDRESS, else a cluster on this machine.
    """

    def __init__(self, address: str | None, environ: Mapping[str, str]) -> None:
        from pipeline.edges.ray import RayCluster

        self._named = address or environ.get("RAY_ADDRESS")
        self._joined = True
        try:
            RayCluster(self._named or "auto", 0)
        except ClusterUnfit:
            if self._named:
                raise
            self._joined = False

    def read(self, job: str) -> tuple[statuses.Status | None, str]:
        """What the run shows, or why there is nothing to show."""
        from pipeline.edges.ray import read_board

        if not self._joined:
            return (
                None,
                "no Ray cluster on this machine: only Kafka was asked (--address names one)",
            )
        text = read_board(job)
        if not text:
            where = self._named or "this machine's Ray cluster"
            return None, f"no run of job {job} at {where}: only Kafka was asked"
        return statuses.decode(text), ""

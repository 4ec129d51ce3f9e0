"""How a run stands, as one value: for `headrace status`, the metrics, the progress and the log."""

import msgspec

from pipeline.config import Config
from pipeline.control import Report
from pipeline.fleet import Replica
from pipeline.keeper import ArchiveKeeper
from pipeline.scaler import Scaler
from pipeline.slot import Slot


class PartitionStatus(msgspec.Struct, frozen=True):
    """One partition; offsets are next offsets, `lag` counts offsets, `time_lag` seconds."""

    topic: str
    partition: int
    slot: int
    committed: int
    end: int
    lag: int
    time_lag: float


class SlotStatus(msgspec.Struct, frozen=True):
    """One slot and its feeder."""

    slot: int
    state: str
    pid: int
    epoch: int
    waiting_on: str
    uncommitted_rows: int
    commits: int
    last_commit_seconds: float | None
    committed_at: float | None
    memory_bytes: int


class ReplicaStatus(msgspec.Struct, frozen=True):
    """One replica; `isolation_of` is the slot whose suspects it scores alone.

    `gpu` is what it reserved of GPUs, 0 where it scores on the CPU.
    """

    replica: int
    state: str
    pid: int
    seconds: float
    in_flight: int
    isolation_of: int | None
    gpu: float


class PlacementStatus(msgspec.Struct, frozen=True):
    """Where records are scored: as the config says, what `auto` has chosen, and why.

    `reason` is null where there was nothing to choose.
    """

    setting: str
    chosen: str
    reason: str | None


class ScalingStatus(msgspec.Struct, frozen=True):
    """The number of replicas: `mode` is fixed, act or observe.

    `wanted`, `batch_size` and `reason` are of the newest decision, null before there is one; `ups`
    and `downs` count the decisions that asked for more and for fewer.
    """

    mode: str
    wanted: int | None
    batch_size: int | None
    reason: str | None
    ups: int
    downs: int


class ArchiveStatus(msgspec.Struct, frozen=True):
    """The archiver: what is in visible files, what is not yet."""

    state: str
    pid: int
    rows: int
    files: int
    pending_rows: int
    lag: int
    oldest_seconds: float


class Status(msgspec.Struct, frozen=True):
    """A whole run. Rates are records per second over the last seconds; times since the epoch."""

    job: str
    state: str
    delivery: str
    placement: PlacementStatus
    model_name: str
    model_version: str
    started_at: float
    at: float
    records_in: int
    records_out: int
    dead_letters: dict[str, int]
    records_per_second: float
    lag: int
    time_lag: float
    feeders_replaced: int
    replicas_replaced: int
    slots: list[SlotStatus]
    partitions: list[PartitionStatus]
    replicas: list[ReplicaStatus]
    scaling: ScalingStatus
    archive: ArchiveStatus


def encode(status: Status) -> bytes:
    """JSON, with every field named."""
    return msgspec.json.encode(status)


def decode(text: bytes) -> Status:
    """Read it back."""
    return msgspec.json.decode(text, type=Status)


def slot_status(slot: Slot) -> SlotStatus:
    """One slot as its newest report tells it."""
    report = slot.report
    return SlotStatus(
        slot=slot.number,
        state=slot.state.value,
        pid=slot.pid,
        epoch=report.epoch if report else 0,
        waiting_on=report.waiting_on.value if report else "",
        uncommitted_rows=report.uncommitted_rows if report else 0,
        commits=report.commits if report else 0,
        last_commit_seconds=report.last_commit_seconds if report else None,
        committed_at=report.committed_at if report else None,
        memory_bytes=report.memory_bytes if report else 0,
    )


def partition_statuses(
    report: Report, ends: dict[tuple[str, int], int], now: float
) -> list[PartitionStatus]:
    """The partitions of one slot. `now` is in seconds since the epoch."""
    found = []
    for item in report.partitions:
        topic, number = item.partition
        end = max(ends.get((topic, number), 0), item.position)
        lag = max(0, end - item.committed)
        age = 0.0 if item.oldest is None else max(0.0, now - item.oldest / 1000)
        found.append(PartitionStatus(topic, number, report.slot, item.committed, end, lag, age))
    return found


def replica_status(replica: Replica, in_flight: int, now: float) -> ReplicaStatus:
    """One replica. `now` is monotonic."""
    return ReplicaStatus(
        replica.id,
        replica.state.value,
        replica.pid,
        now - replica.since,
        in_flight,
        replica.slot,
        replica.kind.gpus,
    )


def placement_status(config: Config, scaler: Scaler) -> PlacementStatus:
    """The choice that stands."""
    choice = scaler.choice
    if choice is None:
        return PlacementStatus(config.placement, config.placement, None)
    return PlacementStatus(config.placement, choice.placement, choice.reason)


def scaling_status(scaler: Scaler) -> ScalingStatus:
    """The newest decision."""
    decision = scaler.decision
    return ScalingStatus(
        mode=scaler.mode,
        wanted=decision.replicas if decision else None,
        batch_size=decision.batch_size if decision else None,
        reason=decision.reason if decision else None,
        ups=scaler.ups,
        downs=scaler.downs,
    )


def archive_status(keeper: ArchiveKeeper) -> ArchiveStatus:
    """The archiver as its newest report tells it, with what its predecessors made."""
    report = keeper.report
    return ArchiveStatus(
        state=keeper.state,
        pid=keeper.pid,
        rows=keeper.finished_rows + (report.rows if report else 0),
        files=keeper.finished_files + (report.files if report else 0),
        pending_rows=report.pending_rows if report else 0,
        lag=report.lag if report else 0,
        oldest_seconds=report.oldest if report else 0.0,
    )


def line(status: Status) -> str:
    """One line of progress for a person."""
    ready = sum(1 for replica in status.replicas if replica.state == "ready")
    dead = sum(status.dead_letters.values())
    where = f"{ready} ready"
    if status.placement.chosen == "local":
        where = f"in their feeders and {where}" if ready else "in their feeders"
    return (
        f"{status.job} {status.state}: {status.records_in:,} records, "
        f"{status.records_per_second:,.0f}/s, lag {status.lag:,} ({status.time_lag:.1f} s), "
        f"replicas {where}, dead letters {dead:,}, "
        f"in Parquet {status.archive.rows:,} (+{status.archive.pending_rows:,} pending)"
    )


def summary(status: Status, config: Config) -> str:
    """What a run that has ended leaves behind."""
    seconds = max(status.at - status.started_at, 1e-9)
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in status.dead_letters.items())
    dead = sum(status.dead_letters.values())
    folder = config.output.parquet / config.job
    lines = {
        "records": f"{status.records_in:,} in {seconds:,.1f} s",
        "predictions": f"{status.records_out:,} in topic {config.output.topic}",
        "dead letters": f"{dead:,} in topic {config.dead_letters.topic}"
        + (f": {reasons}" if reasons else ""),
        "Parquet": f"{status.archive.rows:,} rows in {status.archive.files:,} files below {folder}",
        "replaced": f"{status.feeders_replaced} feeders, {status.replicas_replaced} replicas",
    }
    return "\n".join([f"{status.job} has ended", *(f"  {k:<13}{v}" for k, v in lines.items())])

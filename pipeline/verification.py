"""What `headrace verify` says in the end, and the exit code that goes with it."""

import time

import msgspec

from pipeline.audit_job import JobAudit, Range
from pipeline.config import Config
from pipeline.errors import NotCheckable

OK, ANOMALIES, NOT_CHECKABLE = "ok", "anomalies", "not checkable"
EXIT_CODES = {OK: 0, ANOMALIES: 1, NOT_CHECKABLE: NotCheckable.exit_code}


class Found(msgspec.Struct, frozen=True):
    """One kind of anomaly in one place, with a few examples."""

    anomaly: str
    where: str
    count: int
    examples: list[str]


class Verification(msgspec.Struct, frozen=True):
    """What `headrace verify --json` prints, as one object.

    `result` is ok, anomalies or not checkable; `not_checkable` says why a part could not be looked
    at. `repeated` counts predictions and dead letters of records that had one before, which
    at_least_once allows. `generation` is that of the layout that was looked at, 0 for all.
    """

    job: str
    at: float
    delivery: str
    result: str
    generation: int
    partitions: list[Range]
    predictions: int
    dead_letters: int
    repeated: int
    files: int
    anomalies: list[Found]
    not_checkable: list[str]


def verification(config: Config, held: JobAudit, unknown: list[str]) -> Verification:
    """The result: an anomaly is one whatever else could not be looked at."""
    audit, reasons = held.audit, [*unknown, *held.unknown]
    findings = audit.findings.all()
    return Verification(
        job=config.job,
        at=time.time(),
        delivery=config.delivery,
        result=ANOMALIES if findings else NOT_CHECKABLE if reasons else OK,
        generation=audit.generation,
        partitions=held.ranges,
        predictions=audit.counts.predictions,
        dead_letters=audit.counts.dead_letters,
        repeated=audit.counts.repeated,
        files=held.files,
        anomalies=[Found(one.anomaly, one.where, one.count, one.examples) for one in findings],
        not_checkable=reasons,
    )

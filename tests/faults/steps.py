"""Every named step at which the fault suite ends or stops a process: one table.

`injection` wraps the callables in the processes of a run, the storm and the zombies walk through
the rows. The processes hold no hook of their own: production code does not know this table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

EXACTLY_ONCE, AT_LEAST_ONCE = "exactly_once", "at_least_once"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one role.

    `target` is "module:Owner.function", of each Owner in "module:One|Other.function"; `side` says
    whether the step stands before the call, after it, or within it, between two of the groups of
    records that it is given. `holds` is asked of the call's arguments and result. `starting` steps
    are reached once in a life: somebody must die first. `delivery` and `placement` name the only
    one that has the step.
    """

    role: str
    name: str
    target: str
    side: str
    holds: Callable[[tuple, object], bool] = lambda _arguments, _result: True
    starting: bool = False
    delivery: str | None = None
    placement: str | None = None

    @property
    def slug(self) -> str:
        """Its name as a file's."""
        return "".join(letter if letter.isalnum() else "-" for letter in f"{self.role}-{self.name}")


def _polled(arguments: tuple, _: object) -> bool:
    return len(arguments[1].offsets) > 0


def _claims(arguments: tuple, _: object) -> bool:
    return arguments[3] == 0


def _read(_: tuple, result) -> bool:
    return len(result[0]) > 0


def _becomes_visible(arguments: tuple, _: object) -> bool:
    return str(arguments[1]).endswith(".parquet")


KAFKA = "pipeline.edges.kafka"
TRANSACTIONAL = f"{KAFKA}.transactional:TransactionalSink"
IDEMPOTENT = f"{KAFKA}.idempotent:IdempotentSink"
# Whichever of them was built is used.
PRODUCER = f"{KAFKA}.producing:CompiledProducer|PythonProducer"
INIT = f"{PRODUCER}.init_transactions"
READ = f"{KAFKA}.offsets:GroupOffsets.claim_positions"
SCORE = "pipeline.score:Scorer.score"
JOURNAL = f"{KAFKA}.journal:KafkaJournal"

_feeder = partial(Step, "feeder")
_claim = partial(Step, "feeder", starting=True)
_exact = partial(Step, "feeder", delivery=EXACTLY_ONCE)
_replica = partial(Step, "replica", placement="remote")
_archiver = partial(Step, "archiver")
_driver = partial(Step, "driver")

STEPS = (
    _claim("claim, before init", INIT, "before", delivery=EXACTLY_ONCE),
    _claim("claim, after init", INIT, "after", delivery=EXACTLY_ONCE),
    _claim("claim, before the stable read", READ, "before"),
    _claim("claim, after the stable read", READ, "after"),
    _exact(
        "claim, before its transaction",
        f"{TRANSACTIONAL}.write",
        "before",
        _claims,
        starting=True,
    ),
    _exact("claim, after its transaction", f"{TRANSACTIONAL}.claim", "after", starting=True),
    _claim("claim, after its commit", f"{IDEMPOTENT}.claim", "after", delivery=AT_LEAST_ONCE),
    # Behind every source, compiled or not.
    _feeder("after poll", "pipeline.progress:Progress.polled", "before", _polled),
    _feeder("a batch is out", "pipeline.edges.ray:RayReplicas.send", "after", placement="remote"),
    _feeder("while scoring", SCORE, "before", placement="local"),
    _exact("after begin", f"{PRODUCER}.begin_transaction", "after"),
    _feeder("in the middle of producing", f"{KAFKA}.producing:produce", "within"),
    _exact("after send_offsets", f"{PRODUCER}.send_offsets_to_transaction", "after"),
    _feeder("after flush", f"{PRODUCER}.flush", "after", delivery=AT_LEAST_ONCE),
    # These two are seen from outside: the proxy sees the request, and its answer.
    _feeder("commit sent", "proxy", "request"),
    _feeder("commit applied, unanswered", "proxy", "answer"),
    _exact("after commit", f"{TRANSACTIONAL}.write", "after"),
    _feeder("after offsets", f"{IDEMPOTENT}.write", "after", delivery=AT_LEAST_ONCE),
    _replica("opening the model", "pipeline.build:build_scorer", "before", starting=True),
    _replica("while scoring", SCORE, "before"),
    _replica("scored", SCORE, "after"),
    _archiver("progress read", f"{JOURNAL}.start", "after", starting=True),
    _archiver("after read", f"{JOURNAL}.poll", "after", _read),
    _archiver("while writing", "pipeline.edges.parquet:LocalAttempt.write", "after"),
    _archiver("before the rename", "os:replace", "before", _becomes_visible),
    _archiver("after the rename", "os:replace", "after", _becomes_visible),
    _archiver("before its progress is known", f"{JOURNAL}.save", "before"),
    _archiver("after its progress is known", f"{JOURNAL}.save", "after"),
    _driver("before the layout", "pipeline.wire:assemble", "before", starting=True),
    _driver("after the layout", "pipeline.wire:assemble", "after", starting=True),
    _driver("a feeder is started", "pipeline.slots:Slots._start", "after", starting=True),
    _driver("a reply is taken", "pipeline.slots:Slots.reply", "after"),
    _driver("a file is reported", "pipeline.keeper:ArchiveKeeper.reply", "after"),
)


def steps(delivery: str, placement: str) -> list[Step]:
    """Those that a job with these settings has."""
    return [
        step
        for step in STEPS
        if step.delivery in {None, delivery} and step.placement in {None, placement}
    ]

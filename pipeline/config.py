"""The settings of a job: closed, frozen, and derived from the job's name.

Each field says in its metadata what it means and what it may hold (`about`): `settings` checks by
it and `explain` prints it, so that neither can drift from the fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def about(
    meaning: str,
    *,
    derived: str | None = None,
    choices: Sequence[str] = (),
    shape: str | None = None,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    shorthand: str | None = None,
) -> dict[str, Any]:
    """Metadata of one setting, under the keys that hold something.

    `derived` is a default with `{job}` in it; `minimum` and `maximum` belong to the range and
    `above` does not; `shape` names a check of texts in `pipeline.settings`; `shorthand` is the
    field that a bare number stands for where a section is expected.
    """
    facts = {
        "help": meaning,
        "derived": derived,
        "choices": tuple(choices),
        "shape": shape,
        "minimum": minimum,
        "above": above,
        "maximum": maximum,
        "shorthand": shorthand,
    }
    return {name: fact for name, fact in facts.items() if fact not in (None, ())}


class Secret(str):
    """A text that no repr shows, and so no message and no log of a `Config`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, slots=True)
class Input:
    """Where records come from and what of each is kept."""

    topic: str = field(
        metadata=about(
            "the topic that records are read from", derived="{job}.events", shape="topic"
        )
    )
    format: str = field(
        default="json", metadata=about("how a record's value is encoded", choices=("json",))
    )
    start: str = field(
        default="earliest",
        metadata=about(
            "where the very first start begins: earliest, latest, or an ISO 8601 time with its "
            "zone such as 2026-01-31T08:00:00Z; later starts go on where the job stopped",
            shape="start",
        ),
    )
    pass_through: dict[str, Any] = field(
        default_factory=dict,
        metadata=about(
            "event fields that each prediction and each Parquet row keeps, with their types: "
            "{id: int64, card: string, geo: {lat: float64}, tags: [string]}",
            shape="types",
        ),
    )
    event_time: str | None = field(
        default=None,
        metadata=about(
            "the event field that holds its time, in milliseconds since the epoch or as ISO 8601 "
            "(geo.time reaches into nested objects); null takes the timestamp that Kafka holds",
            shape="field",
        ),
    )


@dataclass(frozen=True, slots=True)
class Output:
    """Where predictions go: a topic, and Parquet under `{parquet}/{job}/`."""

    topic: str = field(
        metadata=about(
            "the topic that predictions are written to", derived="{job}.predictions", shape="topic"
        )
    )
    parquet: Path = field(
        metadata=about(
            "the folder under which {job}/date=YYYY-MM-DD/*.parquet are written; relative to the "
            "current directory; a local or mounted folder, object stores are not supported yet",
            derived="./out",
            shape="folder",
        )
    )
    partition_by: str = field(
        default="date", metadata=about("how files are laid out in folders", choices=("date",))
    )
    shared: bool = field(
        default=False,
        metadata=about(
            "true where every node of the cluster sees the Parquet folder under this path, as on "
            "a network mount, so that the archiver may run on any of them"
        ),
    )
    compression: str = field(
        default="zstd",
        metadata=about(
            "how Parquet pages are compressed", choices=("zstd", "snappy", "lz4", "gzip", "none")
        ),
    )


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many replicas score, and what each asks of Ray."""

    count: int = field(
        default=2,
        metadata=about(
            "replicas that score where placement is remote, for as long as max_replicas is null, "
            "and the most of them where placement is auto",
            minimum=1,
            maximum=10_000,
        ),
    )
    max_replicas: int | None = field(
        default=None,
        metadata=about(
            "the most replicas; where it is set their number follows the lag, and where placement "
            "is local or auto they are added to what the feeders score themselves",
            minimum=1,
            maximum=10_000,
        ),
    )
    min_replicas: int | None = field(
        default=None,
        metadata=about(
            "the fewest replicas where their number follows the lag; null takes 1, and 0 while "
            "feeders score; 0 is refused at run time while a cold start takes too long, and where "
            "auto has replicas alone score",
            minimum=0,
            maximum=10_000,
        ),
    )
    max_time_lag: float = field(
        default=60.0,
        metadata=about(
            "seconds that a record may wait for its commit; what the number of replicas is for",
            above=0,
            maximum=86_400,
        ),
    )
    cpus: float = field(
        default=1.0,
        metadata=about("CPUs that each replica reserves with Ray", minimum=0, maximum=1024),
    )
    gpu: float = field(
        default=0.0,
        metadata=about(
            "GPUs, or the share of one, that each replica reserves with Ray; above 0 the model "
            "runs on CUDA, or not at all; placement must be remote or auto, which is then the same",
            minimum=0,
            maximum=64,
        ),
    )
    cpu_replicas: int = field(
        default=0,
        metadata=about(
            "replicas without a GPU beside those that replicas.gpu gives one: each batch goes to "
            "who is through with it first; their number is fixed, and so is that of the others",
            minimum=0,
            maximum=10_000,
        ),
    )


@dataclass(frozen=True, slots=True)
class Ranking:
    """What a model that ranks may recommend; for other models it says nothing."""

    k: int = field(
        default=10,
        metadata=about("items in each recommendation, at most", minimum=1, maximum=10_000),
    )
    exclude_seen: bool = field(
        default=True,
        metadata=about("whether items that the event says were seen are left out"),
    )
    allow: Path | None = field(
        default=None,
        metadata=about(
            "a text file with an item id a line: only these are recommended; null allows all",
            shape="folder",
        ),
    )
    deny: Path | None = field(
        default=None,
        metadata=about(
            "a text file with an item id a line: these are never recommended", shape="folder"
        ),
    )


@dataclass(frozen=True, slots=True)
class Batching:
    """When a batch is full: rows, bytes or age, whichever is first."""

    max_batch_size: int = field(
        default=8192,
        metadata=about(
            "records in one batch; at most commit.max_rows", minimum=1, maximum=1_000_000
        ),
    )
    # Arrow's 32-bit offsets hold 2 GiB of values in one array.
    max_batch_bytes: int = field(
        default=8 << 20,
        metadata=about(
            "bytes of keys and values in one batch; at most commit.max_bytes",
            minimum=1,
            maximum=1 << 30,
        ),
    )
    max_batch_delay_ms: int = field(
        default=2,
        metadata=about(
            "milliseconds that the first record of a batch waits for others; 0 sends at once",
            minimum=0,
            maximum=60_000,
        ),
    )


@dataclass(frozen=True, slots=True)
class CommitPolicy:
    """When a commit is due: age, rows or bytes; at twice the rows or bytes consuming stops."""

    # A transaction is open while its commit runs, not while records wait for it: what bounds the
    # interval is how long readers wait, not the broker's transaction timeout.
    interval_ms: int = field(
        default=100,
        metadata=about(
            "milliseconds between two commits; up to twice that on a busy broker",
            minimum=1,
            maximum=60_000,
        ),
    )
    max_rows: int = field(
        default=32768,
        metadata=about("records that make a commit due at once", minimum=1, maximum=10_000_000),
    )
    max_bytes: int = field(
        default=32 << 20,
        metadata=about("bytes that make a commit due at once", minimum=1, maximum=4 << 30),
    )


@dataclass(frozen=True, slots=True)
class Roll:
    """When a Parquet file is complete: by age or by bytes of its chunks before compression."""

    # The journal is kept for days: a roll a day is far from what would be lost.
    interval_seconds: float = field(
        default=60.0,
        metadata=about("seconds until a file is complete and visible", above=0, maximum=86_400),
    )
    max_bytes: int = field(
        default=128 << 20,
        metadata=about("uncompressed bytes that complete a file", minimum=1, maximum=16 << 30),
    )


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Where records go that cannot be scored, and the share of them that stops the job."""

    topic: str = field(
        metadata=about(
            "the topic that dead letters are written to", derived="{job}.dead", shape="topic"
        )
    )
    max_dead_ratio: float = field(
        default=0.1,
        metadata=about(
            "share of dead letters in the window above which the job stops; 1 never stops it",
            above=0,
            maximum=1,
        ),
    )
    window: int = field(
        default=10_000,
        metadata=about(
            "latest records over which the share is taken", minimum=1, maximum=100_000_000
        ),
    )


@dataclass(frozen=True, slots=True)
class Journal:
    """The topic from which the Parquet files are made."""

    topic: str = field(
        metadata=about(
            "the topic that scored batches are logged to, one partition for each slot",
            derived="{job}.journal",
            shape="topic",
        )
    )


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where Prometheus reads."""

    host: str = field(default="127.0.0.1", metadata=about("the address that serves metrics"))
    port: int | None = field(
        default=9108,
        metadata=about(
            "the port that serves metrics; 0 takes a free one, null serves none",
            minimum=0,
            maximum=65_535,
        ),
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The job itself."""

    job: str = field(
        metadata=about(
            "the job's name: letters, digits, _ and -; topics, group, folder and metrics follow it",
            shape="job",
        )
    )
    model: Path = field(
        metadata=about(
            "the model's folder, models/fraud for its newest version or models/fraud/3 for that "
            "one; relative to the current directory",
            shape="folder",
        )
    )
    kafka: dict[str, str] = field(
        metadata=about(
            "librdkafka's dotted keys, bootstrap.servers at least; secrets only as ${NAME}"
        )
    )
    input: Input = field(metadata=about("where records come from"))
    output: Output = field(metadata=about("where predictions go"))
    dead_letters: DeadLetters = field(metadata=about("where records go that cannot be scored"))
    journal: Journal = field(metadata=about("what the Parquet files are made of"))
    group: str = field(
        metadata=about(
            "the group that offsets are committed to, and the first part of each transactional id",
            derived="{job}",
            shape="group",
        )
    )
    delivery: str = field(
        default="exactly_once",
        metadata=about(
            "exactly_once writes in transactions; at_least_once may repeat predictions in Kafka "
            "after a failure, never rows in Parquet",
            choices=("exactly_once", "at_least_once"),
        ),
    )
    placement: str = field(
        default="remote",
        metadata=about(
            "where scoring runs: remote in Ray actors of its own, local inside each feeder "
            "(small models, lowest latency), auto inside each feeder while no batch holds one for "
            "longer than commit.interval_ms, with remote replicas beside them under lag, and else "
            "in those alone; headrace status says what it chose and why",
            choices=("remote", "local", "auto"),
        ),
    )
    # Four digits of the slot are part of names that must sort.
    slots: int | None = field(
        default=None,
        metadata=about(
            "feeders that share the partitions; a start with another number hands them over, null "
            "keeps what there is and takes min(partitions, cores) at the first start",
            minimum=1,
            maximum=9999,
        ),
    )
    replicas: Replicas = field(
        default=Replicas(), metadata=about("how many replicas score", shorthand="count")
    )
    scaling: str = field(
        default="act",
        metadata=about(
            "act lets replicas.max_replicas change their number; observe decides, says why, and "
            "leaves the number at replicas.count",
            choices=("act", "observe"),
        ),
    )
    recipe: str | None = field(
        default=None,
        metadata=about(
            "your own recipe as module:function; null takes the one that the model's signature "
            "gives",
            shape="recipe",
        ),
    )
    ranking: Ranking = field(
        default=Ranking(), metadata=about("what a model that ranks may recommend")
    )
    batching: Batching = field(default=Batching(), metadata=about("when a batch is full"))
    commit: CommitPolicy = field(default=CommitPolicy(), metadata=about("when a commit is due"))
    roll: Roll = field(default=Roll(), metadata=about("when a Parquet file is complete"))
    metrics: Metrics = field(default=Metrics(), metadata=about("where Prometheus reads"))

    @property
    def scores_in_feeders(self) -> bool:
        """Whether feeders can score themselves; they have no GPU."""
        return self.placement == "local" or (self.placement == "auto" and not self.replicas.gpu)

    @property
    def most_replicas(self) -> int | None:
        """The most replicas where their number follows the lag, None where it is fixed."""
        replicas = self.replicas
        return replicas.max_replicas or (replicas.count if self.placement == "auto" else None)

    @property
    def archive_group(self) -> str:
        """The group that the archive's progress is committed to."""
        return f"{self.group}.archive"

"""From YAML to a `Config`, or to every mistake at once."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import kafka_keys, settings
from pipeline.config import Batching, Config, Journal, Replicas
from pipeline.errors import ConfigInvalid

BASE = Path("/base")
FULL = """
job: fraud
model: models/fraud
kafka:
  bootstrap.servers: ${KAFKA_BOOTSTRAP_SERVERS:-127.0.0.1:9092}
  linger.ms: 5
  socket.keepalive.enable: true
input: {topic: fraud.in, format: json, start: latest, pass_through: {id: int64, geo: {lat: float64}, tags: [string]}, event_time: ts}
output: {topic: fraud.out, parquet: ./files, partition_by: date, shared: true, compression: lz4}
delivery: at_least_once
placement: local
slots: 2
replicas: {count: 3, cpus: 1}
recipe: my_module:recipe
batching: {max_batch_size: 100, max_batch_bytes: 1000, max_batch_delay_ms: 0}
commit: {interval_ms: 200, max_rows: 100, max_bytes: 1000}
roll: {interval_seconds: 0.5, max_bytes: 10}
dead_letters: {topic: fraud.dlq, max_dead_ratio: 1, window: 10}
journal: {topic: fraud.log}
group: scorers
metrics: {host: 127.0.0.1, port: null}
"""


def minimal(**changes: object) -> dict[str, object]:
    """Three keys are enough for a job."""
    kafka = {"bootstrap.servers": "127.0.0.1:9092"}
    return {"job": "fraud", "model": "models/fraud", "kafka": kafka, **changes}


def parse(content: object, **environ: str) -> Config:
    """Parse with `/base` as the folder that paths start from."""
    return settings.parse(content, BASE, environ)


def mistakes(content: object, **environ: str) -> dict[str, str]:
    """The messages by setting; each must name what is wrong and the way out."""
    with pytest.raises(ConfigInvalid) as caught:
        parse(content, **environ)
    assert all(m.problem and m.way_out for m in caught.value.mistakes)
    return {m.setting: str(m) for m in caught.value.mistakes}


def load(tmp_path: Path, text: str, **environ: str) -> Config:
    """Write a file and load it."""
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return settings.load(path, environ)


def test_everything_else_is_derived_from_the_name():
    """Three keys give a whole config: topics, group and folder follow the job."""
    config = parse(minimal())
    assert config.input.topic == "fraud.events"
    assert config.output.topic == "fraud.predictions"
    assert config.dead_letters.topic == "fraud.dead"
    assert config.journal == Journal("fraud.journal")
    assert config.group == "fraud"
    assert config.output.parquet == BASE / "out"
    assert config.model == BASE / "models/fraud"
    assert config.delivery == "exactly_once"
    assert config.batching == Batching()
    assert config.slots is None


def test_every_key_can_be_written(tmp_path, monkeypatch):
    """What the file says is what the config holds, and paths start from the current directory."""
    monkeypatch.chdir(tmp_path)
    config = load(tmp_path, FULL)
    assert config.kafka == {
        "bootstrap.servers": "127.0.0.1:9092",
        "linger.ms": "5",
        "socket.keepalive.enable": "true",
    }
    assert config.input.pass_through == {
        "id": "int64",
        "geo": {"lat": "float64"},
        "tags": ["string"],
    }
    assert config.input.event_time == "ts"
    assert config.output.parquet == tmp_path / "files"
    assert config.replicas == Replicas(3, cpus=1.0)
    assert config.roll.interval_seconds == 0.5
    assert config.metrics.port is None
    assert (config.group, config.slots, config.recipe) == ("scorers", 2, "my_module:recipe")


def test_the_shipped_config_is_free_of_mistakes():
    """`configs/fraud.yaml` loads with an empty environment."""
    config = settings.load(Path(__file__).parents[2] / "configs/fraud.yaml", {})
    assert config.job == "fraud"
    assert config.input.pass_through == {"id": "int64"}


def test_every_mistake_is_reported_at_once():
    """One run shows all that must be mended."""
    content = {
        "jobb": "fraud",
        "job": "a.b",
        "kafka": {"group.id": "x", "sasl.password": "hunter2", "client.id": "${NAME}"},
        "input": {"start": "yesterday", "topic": "a b"},
        "output": {"parquet": "s3://bucket/out"},
        "delivery": "exactly-once",
        "slots": 0,
        "replicas": "many",
        "commit": {"max_rows": 10},
        "roll": {"interval_seconds": "60"},
        "metrics": None,
    }
    assert set(mistakes(content)) == {
        "jobb", "job", "model", "kafka.group.id", "kafka.sasl.password", "kafka.client.id",
        "kafka.bootstrap.servers", "input.start", "input.topic", "output.parquet", "delivery",
        "slots", "replicas.count", "batching.max_batch_size", "roll.interval_seconds", "metrics",
    }  # fmt: skip


@pytest.mark.parametrize("content", [None, [], "job", 3, {}])
def test_what_is_no_config_is_a_mistake(content):
    """Neither an empty file nor a list is a config."""
    assert mistakes(content)


@pytest.mark.parametrize(
    ("content", "setting", "hint"),
    [
        ({"replica": 2}, "replica", "Did you mean replicas?"),
        ({"max_batch_size": 2}, "max_batch_size", "Did you mean batching.max_batch_size?"),
        ({"topic": "x"}, "topic", "input.topic or output.topic"),
        (
            {"batching": {"max_batch_sise": 2}},
            "batching.max_batch_sise",
            "batching.max_batch_size?",
        ),
        ({"input": {"group": "x"}}, "input.group", "Remove it; there are topic"),
        ({"linger.ms": 5}, "linger.ms", "stand under kafka"),
        ({5: 5}, "5", "Remove it"),
    ],
)
def test_an_unknown_key_is_a_mistake_with_what_was_meant(content, setting, hint):
    """A typing error is found, and a setting in the wrong section too."""
    assert hint in mistakes(minimal() | content)[setting]


@pytest.mark.parametrize("name", ["", "a.b", "-a", "_a", "a b", "a/b", "..", "a\n", "ä", "a" * 201])
def test_an_illegal_job_name_is_the_only_mistake(name):
    """Nothing is derived from a name that is not legal, so it is reported once."""
    assert set(mistakes(minimal(job=name))) == {"job"}


@pytest.mark.parametrize(
    ("content", "setting", "problem"),
    [
        ({"job": 2024}, "job", "is a number, where a text is expected. Put it in quotes"),
        ({"model": ["a"]}, "model", "where a path is expected"),
        ({"slots": "2"}, "slots", "is a text, where a whole number is expected"),
        ({"slots": 2.0}, "slots", "where a whole number"),
        ({"slots": True}, "slots", "is a truth value"),
        ({"replicas": True}, "replicas.count", "is a truth value"),
        ({"output": {"shared": "yes"}}, "output.shared", "where true or false is expected"),
        ({"output": {"shared": 1}}, "output.shared", "where true or false is expected"),
        ({"roll": {"interval_seconds": float("nan")}}, "roll.interval_seconds", "a number is"),
        ({"roll": {"interval_seconds": 10**400}}, "roll.interval_seconds", "a number is"),
        ({"input": "fraud.events"}, "input", "where settings are expected"),
        ({"kafka": None}, "kafka", "is empty, where settings are expected"),
        ({"delivery": None}, "delivery", "is empty, where a text is expected"),
        ({"input": {"pass_through": ["id"]}}, "input.pass_through", "where a mapping is expected"),
        ({"metrics": {"host": " "}}, "metrics.host", "is empty or not printable"),
    ],
)
def test_a_wrong_type_is_named(content, setting, problem):
    """The message says what was found and what was expected."""
    assert problem in mistakes(minimal() | content)[setting]


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("commit", "interval_ms", 0),
        ("commit", "max_rows", 0),
        ("roll", "interval_seconds", 0),
        ("roll", "interval_seconds", -1),
        ("batching", "max_batch_size", 0),
        ("batching", "max_batch_delay_ms", -1),
        ("batching", "max_batch_bytes", 1 << 31),
        ("dead_letters", "max_dead_ratio", 0),
        ("dead_letters", "max_dead_ratio", 1.01),
        ("dead_letters", "window", 0),
        ("replicas", "count", 0),
        ("replicas", "cpus", -0.5),
        ("metrics", "port", 65_536),
    ],
)
def test_a_number_out_of_range_is_named_with_the_range(section, name, value):
    """The message says which numbers are allowed."""
    assert "Write a number" in mistakes(minimal(**{section: {name: value}}))[f"{section}.{name}"]


def test_a_number_too_long_to_write_is_a_mistake():
    """Python refuses to write such a number, so the message does without it."""
    assert "…" in mistakes(minimal(slots=10**5000))["slots"]


@pytest.mark.parametrize(
    ("content", "setting", "hint"),
    [
        ({"delivery": "exactly-once"}, "delivery", "Did you mean exactly_once?"),
        ({"placement": "here"}, "placement", "Write remote or local or auto"),
        ({"input": {"format": "avro"}}, "input.format", "Write json"),
        ({"output": {"partition_by": "hour"}}, "output.partition_by", "Write date"),
        ({"output": {"compression": "zst"}}, "output.compression", "Did you mean zstd?"),
    ],
)
def test_an_unknown_choice_is_named_with_the_choices(content, setting, hint):
    """The message says which words are known."""
    assert hint in mistakes(minimal(**content))[setting]


@pytest.mark.parametrize(
    "start", ["earliest", "latest", "2026-01-31T08:00:00Z", "2026-01-31 08:00+02:00"]
)
def test_a_start_is_a_word_or_a_time_with_its_zone(start):
    """Each legal start is kept as it is written."""
    assert parse(minimal(input={"start": start})).input.start == start


@pytest.mark.parametrize(
    "start", ["first", "2026-01-31", "2026-01-31T08:00:00", "1969-12-31T00:00:00Z", "1700000000"]
)
def test_another_start_is_a_mistake(start):
    """A time without its zone could mean several moments."""
    assert "input.start" in mistakes(minimal(input={"start": start}))


@pytest.mark.parametrize("scheme", ["s3://b/out", "gs://b", "hdfs://n:1/x", "file:///x", "abfs:/x"])
@pytest.mark.parametrize("section", ["parquet", "model"])
def test_object_stores_are_refused_with_the_way_out(scheme, section):
    """A mounted folder is the way out, and no local folder called `s3:` is made."""
    content = {"output": {"parquet": scheme}} if section == "parquet" else {"model": scheme}
    (message,) = mistakes(minimal(**content)).values()
    assert "not supported yet" in message
    assert "Mount the store" in message


def test_a_tilde_is_refused():
    """No folder called `~` is made."""
    assert "${HOME}" in mistakes(minimal(output={"parquet": "~/out"}))["output.parquet"]


@pytest.mark.parametrize(
    "recipe", ["mine", "mine:", ":recipe", "my-module:recipe", "a..b:c", "a:b:c"]
)
def test_a_recipe_is_module_and_function(recipe):
    """Anything but an import path is a mistake."""
    assert "recipe" in mistakes(minimal(recipe=recipe))


@pytest.mark.parametrize(
    ("types", "setting"),
    [
        ({"": "int64"}, ""),
        ({1: "int64"}, ""),
        ({"a": 1}, ".a"),
        ({"a": None}, ".a"),
        ({"a": {}}, ".a"),
        ({"a": ["int64", "int64"]}, ".a"),
        ({"geo": {"lat": "float"}}, ".geo.lat"),
        ({"tags": ["text"]}, ".tags[0]"),
        ({"a\ud800": "int64"}, ""),
    ],
)
def test_pass_through_is_fields_with_types(types, setting):
    """Each field has a known type, fields of its own, or a list of one type."""
    assert set(mistakes(minimal(input={"pass_through": types}))) == {f"input.pass_through{setting}"}


def test_every_type_that_is_not_known_is_reported():
    """Two wrong types are two mistakes, beside those of other settings."""
    found = mistakes(minimal(input={"pass_through": {"a": "int46", "b": "text"}}, slots=0))
    assert set(found) == {"input.pass_through.a", "input.pass_through.b", "slots"}


@pytest.mark.parametrize("name", [".ts", "geo..time", "ts.", ""])
def test_event_time_is_a_field(name):
    """A dotted name has no empty part."""
    assert "input.event_time" in mistakes(minimal(input={"event_time": name}))


def test_a_key_that_cannot_be_printed_is_escaped(tmp_path):
    """Half a surrogate pair, as YAML can write it, does not break the message."""
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path, 'job: fraud\n"\\ud800": 1\nkafka: {"\\ud800": 1}\n')
    assert str(caught.value).encode()


def test_pass_through_that_holds_itself_is_a_mistake():
    """A mapping without an end is refused instead of followed."""
    types: dict[str, object] = {}
    types["a"] = types
    assert "deep" in mistakes(minimal(input={"pass_through": types}))["input.pass_through"]


@pytest.mark.parametrize(
    ("content", "setting"),
    [
        ({"output": {"topic": "fraud.events"}}, "output.topic"),
        ({"journal": {"topic": "fraud.dead"}}, "journal.topic"),
        ({"input": {"topic": "a"}, "dead_letters": {"topic": "a"}}, "dead_letters.topic"),
        ({"input": {"topic": "fraud_predictions"}}, "output.topic"),
    ],
)
def test_topics_differ_from_each_other(content, setting):
    """No topic has two uses, and none differs from another in . and _ alone, as Kafka asks."""
    assert set(mistakes(minimal(**content))) == {setting}


def test_a_batch_fits_in_a_commit():
    """A batch larger than a commit, in rows or bytes, is a mistake that names both settings."""
    found = mistakes(minimal(commit={"max_rows": 1000, "max_bytes": 1000}))
    assert "commit.max_rows = 1000" in found["batching.max_batch_size"]
    assert "commit.max_bytes = 1000" in found["batching.max_batch_bytes"]


@pytest.mark.parametrize(
    ("content", "setting", "says"),
    [
        (
            {"replicas": {"min_replicas": 3, "max_replicas": 2}},
            "replicas.min_replicas",
            "more than",
        ),
        ({"replicas": {"min_replicas": 3}}, "replicas.min_replicas", "the number is fixed"),
        (
            {"placement": "auto", "replicas": {"min_replicas": 3, "count": 2}},
            "replicas.min_replicas",
            "more than replicas.count = 2",
        ),
        ({"scaling": "observe"}, "scaling", "Set replicas.max_replicas"),
        ({"scaling": "observe", "replicas": 2}, "scaling", "nothing to observe"),
    ],
)
def test_the_replicas_that_follow_the_lag_have_bounds(content, setting, says):
    """The least is not above the most, and without a most the number is fixed."""
    found = mistakes(minimal(**content))
    assert set(found) == {setting}
    assert says in found[setting]


def test_auto_adds_replicas_up_to_their_count():
    """Without a most of their own, which goes before it."""
    auto = {"placement": "auto", "scaling": "observe"}
    assert parse(minimal(**auto, replicas=3)).most_replicas == 3
    assert parse(minimal(**auto, replicas={"count": 3, "max_replicas": 9})).most_replicas == 9
    assert parse(minimal(placement="local", replicas=3)).most_replicas is None


def test_the_group_is_not_the_archivers():
    """Offsets of the input and of the journal would overwrite each other."""
    assert set(mistakes(minimal(group="fraud.archive"))) == {"group"}


def test_names_are_filled_in_from_the_environment():
    """Texts, paths and numbers may come from the environment."""
    content = minimal(
        model="${ROOT}/fraud",
        kafka={"bootstrap.servers": "${HOST}:${PORT:-9092}"},
        metrics={"port": "${METRICS}"},
        replicas="${REPLICAS:-4}",
        output={"shared": "${SHARED}"},
    )
    config = parse(content, ROOT="/models", HOST="broker", METRICS="0", SHARED="true")
    assert config.model == Path("/models/fraud")
    assert config.kafka["bootstrap.servers"] == "broker:9092"
    assert config.metrics.port == 0
    assert config.replicas.count == 4
    assert config.output.shared is True


def test_an_unset_name_is_a_mistake_that_names_it():
    """The message says which variable to set."""
    kafka = {"bootstrap.servers": "${BROKER}"}
    found = mistakes(minimal(kafka=kafka, group="${TEAM}-fraud"))
    assert "BROKER" in found["kafka.bootstrap.servers"]
    assert "TEAM" in found["group"]


def test_messages_show_what_is_written_and_not_what_the_environment_held():
    """A value from the environment may be a secret that was misplaced."""
    found = mistakes(minimal(group="${PASSWORD}", slots="${PASSWORD}"), PASSWORD="hun\tter2")
    assert set(found) == {"group", "slots"}
    assert "ter2" not in "".join(found.values())


SECRETS = [
    "sasl.password",
    "ssl.key.password",
    "ssl.keystore.password",
    "ssl.key.pem",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.config",
    "sasl.pasword",
    "SASL.PASSWORD",
]


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize("literal", ["hunter2", "${NAME:-hunter2}", "x${NAME}hunter2", 42420001])
def test_a_literal_secret_is_a_mistake_that_hides_it(key, literal):
    """A secret comes from the environment alone, whole and without a default."""
    kafka = {"bootstrap.servers": "b:9092", key: literal}
    message = mistakes(minimal(kafka=kafka), NAME="x")[f"kafka.{key}"]
    assert "must not stand in a file" in message
    assert "hunter2" not in message
    assert "42420001" not in message


@pytest.mark.parametrize("key", SECRETS)
def test_a_secret_from_the_environment_is_passed_on_and_never_shown(key):
    """The client gets the text; no repr of the config holds it."""
    config = parse(minimal(kafka={"bootstrap.servers": "b:9092", key: "${NAME}"}), NAME="hunter2")
    assert config.kafka[key] == "hunter2"
    assert "hunter2" not in repr(config)


@pytest.mark.parametrize(
    "content",
    [
        {"sasl.password": "hunter2"},
        {"kafak": {"sasl.password": "hunter2"}},
        {"kafka": "sasl.password=hunter2"},
        {"kafka": {"sasl": {"password": "hunter2"}}},
        {"kafka": [{"sasl.password": "hunter2"}]},
        {"input": {"sasl.password": "hunter2"}},
        {"job": {"sasl.password": "hunter2"}},
    ],
)
def test_a_misplaced_secret_is_hidden_too(content):
    """No wrong place makes a message show a secret."""
    assert "hunter2" not in "".join(mistakes(minimal() | content).values())


@pytest.mark.parametrize(
    "key",
    ["ssl.ca.pem", "ssl.certificate.pem", "ssl.key.location", "sasl.username",
     "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.credentials.client.id",
     "sasl.oauthbearer.token.endpoint.url", "sasl.oauthbearer.assertion.private.key.file"],
)  # fmt: skip
def test_what_is_public_may_be_written(key):
    """Certificates, names and places of files are no secrets."""
    kafka = {"bootstrap.servers": "b:9092", key: "line one\nline two"}
    assert parse(minimal(kafka=kafka)).kafka[key] == "line one\nline two"


@pytest.mark.parametrize("key", [*kafka_keys.OWNED, "error_cb", "stats_cb"])
def test_what_the_protocol_owns_is_refused_with_the_reason(key):
    """Each owned key has a reason and a way out."""
    kafka = {"bootstrap.servers": "b:9092", key: "x"}
    assert "belongs to the protocol: " in mistakes(minimal(kafka=kafka))[f"kafka.{key}"]


@pytest.mark.parametrize("value", [None, {}, [], "", "a\x00b", float("inf"), b"x", 1 << 70])
def test_a_kafka_value_is_a_text_or_a_number(value):
    """What librdkafka cannot take is a mistake."""
    kafka = {"bootstrap.servers": "b:9092", "client.id": value}
    assert set(mistakes(minimal(kafka=kafka))) == {"kafka.client.id"}


@pytest.mark.parametrize("text", ["job: [", "", "- 1", "job: fraud\njob: other\n"])
def test_a_broken_file_is_a_mistake(tmp_path, text):
    """YAML that cannot be read, or says something twice, raises nothing else."""
    with pytest.raises(ConfigInvalid):
        load(tmp_path, text)


def test_what_stands_twice_is_reported_with_the_other_mistakes(tmp_path):
    """A duplicate key does not hide other mistakes."""
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path, "job: fraud\njob: fraud\nslots: 0\n")
    assert {"model", "slots"} < {m.setting for m in caught.value.mistakes}
    assert "job stands there twice" in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path):
    """Missing files, folders and bytes that are no text are named."""
    (tmp_path / "latin.yaml").write_bytes(b"job: \xe4")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(ConfigInvalid, match="config = "):
            settings.load(path, {})


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=3)
    | st.datetimes()
    | st.sampled_from(["${A}", "${B:-1}", "${", "latest", "0001-01-01T00:00:00+23:59", "json"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def section(kind: type) -> st.SearchStrategy[dict[str, object]]:
    """Mappings with the known keys and anything as their values."""
    values = {
        field.name: ANY | section(hint) if settings.is_section(hint) else ANY
        for field, hint in settings.settings_of(kind)
    }
    return st.fixed_dictionaries({}, optional=values)


@given(section(Config) | st.dictionaries(ANY.filter(lambda key: key.__hash__), ANY, max_size=4))
def test_any_mapping_gives_a_config_or_mistakes(content):
    """No content raises anything but `ConfigInvalid`, whose message can be written."""
    with contextlib.suppress(ConfigInvalid):
        parse(content, A="1")
        return
    assert mistakes(content, A="1")


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("group", "slots", "input", "replicas"), ANY))
)
def test_a_config_that_is_accepted_keeps_every_promise(content):
    """Whatever is accepted has distinct topics and numbers in range."""
    try:
        config = parse(minimal(**content), A="1")
    except ConfigInvalid:
        return
    topics = (
        config.input.topic,
        config.output.topic,
        config.dead_letters.topic,
        config.journal.topic,
    )
    assert len(set(topics)) == 4
    assert config.slots is None or config.slots >= 1
    assert config.replicas.count >= 1


def test_gpus_are_for_replicas_of_their_own():
    """A GPU can't be reserved for a replica inside a feeder; a share of one is a number."""
    told = mistakes(minimal(replicas={"gpu": 0.5}, placement="local"))
    assert "placement is local" in told["replicas.gpu"]
    assert parse(minimal(replicas={"gpu": 0.5})).replicas.gpu == 0.5
    assert not parse(minimal(replicas={"gpu": 0.5}, placement="auto")).scores_in_feeders
    assert "no whole number" in mistakes(minimal(replicas={"gpu": 1.5}))["replicas.gpu"]


def test_a_mixed_fleet_has_replicas_without_a_gpu_beside_those_with_one():
    """Both numbers are fixed: what lag needs is told of one kind of replica, and only of one."""
    mixed = parse(minimal(replicas={"count": 1, "gpu": 1, "cpu_replicas": 3})).replicas
    assert (mixed.count, mixed.gpu, mixed.cpu_replicas) == (1, 1.0, 3)
    alone = mistakes(minimal(replicas={"cpu_replicas": 3}))
    assert "replicas.gpu is 0" in alone["replicas.cpu_replicas"]
    followed = mistakes(minimal(replicas={"gpu": 1, "cpu_replicas": 3, "max_replicas": 9}))
    assert "max_replicas" in followed["replicas.cpu_replicas"]
    auto = mistakes(minimal(replicas={"gpu": 1, "cpu_replicas": 3}, placement="auto"))
    assert "placement: auto" in auto["replicas.cpu_replicas"]
    unread = mistakes(minimal(replicas={"gpu": "one", "cpu_replicas": 3}))
    assert list(unread) == ["replicas.gpu"]

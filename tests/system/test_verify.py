"""`headrace verify` on a real broker: a job that kept its promise, and breaks planted beside it.

One finished job serves all. A break is planted in a copy: of the folder, or of a topic, which the
job's config then names; the journal and the input are only broken by the last tests.
"""

import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_job
import yaml
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from jobs.local_broker import create_topics
from pipeline import journal
from pipeline.cli import main
from pipeline.edges import kafka_python

PARTITIONS, SECONDS = 4, 120.0
# Three audits beside a run on a machine that others use as well: a minute where it is idle.
RUNNING_SECONDS = 600.0
OK, BROKEN, UNKNOWN = 0, 1, 6


@dataclass(frozen=True)
class Finished:
    """A finished job: its config's path, its name, the broker, and a folder for copies."""

    config: Path
    job: str
    bootstrap: str
    folder: Path

    @property
    def parquet(self) -> Path:
        return self.config.parents[1] / "out"


def records(count):
    """Most can be scored, every thirteenth cannot; some have no key."""
    for n in range(count):
        value = b'{"features": [1, 2, %d.125]}' % n if n % 13 else b"bad"
        yield None if n % 11 == 0 else b"k%d" % (n % 50), value, n % PARTITIONS


def produce(bootstrap, topic, count):
    """Send in transactions, every second of which is aborted: the input has holes."""
    settings = {"bootstrap.servers": bootstrap, "transactional.id": f"{topic}.input"}
    producer = Producer(settings)
    producer.init_transactions(SECONDS)
    sent = list(records(count))
    for low in range(0, count, 100):
        for commit in (True, False):
            producer.begin_transaction()
            for key, value, number in sent[low : low + 100]:
                producer.produce(topic, value, key, number)
            if commit:
                producer.commit_transaction(SECONDS)
            else:
                producer.flush(SECONDS)
                producer.abort_transaction(SECONDS)


def run_arguments(config):
    import ray

    address = ray.get_runtime_context().gcs_address
    return [sys.executable, "-m", "pipeline.cli", "run", str(config), "--address", address]


def environment():
    variables = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return variables | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


@pytest.fixture(scope="module")
def finished(kafka, ray_session, tmp_path_factory):  # noqa: ARG001 - it runs while this is used
    folder = tmp_path_factory.mktemp("verify")
    job = f"v{folder.parent.name.replace('-', '')}{os.getpid()}"
    counts = {"events": PARTITIONS, "predictions": PARTITIONS, "dead": 1, "journal": PARTITIONS}
    create_topics(kafka.bootstrap, {f"{job}.{name}": count for name, count in counts.items()})
    config = small_job.make(folder, job, kafka.bootstrap, placement="local", slots=2)
    for _ in range(2):
        produce(kafka.bootstrap, f"{job}.events", 400)
        subprocess.run(
            [*run_arguments(config), "--until-caught-up"],
            env=environment(),
            timeout=SECONDS,
            check=True,
        )
    return Finished(config, job, kafka.bootstrap, folder)


@pytest.fixture
def verified(finished, tmp_path, capsys) -> Callable:
    """Verify the job with other settings; gives the exit code, the JSON and what was found."""

    def verify(**settings):
        content = yaml.safe_load(finished.config.read_text(encoding="utf-8")) | settings
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        capsys.readouterr()
        code = main(["verify", str(path), "--json"])
        said = json.loads(capsys.readouterr().out)
        return code, said, {(one["anomaly"], one["where"]) for one in said["anomalies"]}

    return verify


@pytest.fixture
def copied_topic(finished, topic_prefix) -> Callable:
    """Copy a topic of the job, changed by partition; gives the copy's name."""

    def copy(name, edit=lambda rows: rows, partitions=PARTITIONS):
        source, target = f"{finished.job}.{name}", f"{topic_prefix}.{name}"
        create_topics(finished.bootstrap, {target: partitions})
        producer = Producer({"bootstrap.servers": finished.bootstrap})
        for number in range(partitions):
            for key, value, headers in edit(read(finished.bootstrap, source, number)):
                producer.produce(target, value, key, number, headers=headers)
        assert producer.flush(SECONDS) == 0
        return target

    return copy


def read(bootstrap, topic, number):
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": topic,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, number, 0)])
    found = []
    while True:
        message = consumer.poll(SECONDS)
        if message.error() is not None:
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            break
        found.append((message.key(), message.value(), message.headers() or []))
    consumer.close()
    return found


def first_of(number):
    """Edit only one partition: that whose first prediction is of this partition."""

    def only(edit):
        def edited(rows):
            mine = rows and json.loads(rows[0][1])["source"][0] == number
            return edit(rows) if mine else rows

        return edited

    return only


def test_a_job_that_kept_its_promise_is_ok(finished, verified, capsys):
    """Holes in the input, aborted records and dead letters are all as they should be."""
    code, said, found = verified()
    assert (code, said["result"], found) == (OK, "ok", set())
    assert said["not_checkable"] == []
    assert sum(one["records"] for one in said["partitions"]) == 800
    assert said["predictions"] + said["dead_letters"] == 800
    assert said["dead_letters"] == 62
    assert all(one["whole"] and one["first"] == 0 for one in said["partitions"])
    assert said["files"] == 4
    assert main(["verify", str(finished.config)]) == OK
    shown = capsys.readouterr().out
    assert "800" in shown.replace("\n", " ") or "738 predictions" in shown
    assert shown.rstrip().endswith("ok")


def change_name(rows):
    key, value, headers = rows[5]
    return [*rows[:5], (key, value.replace(b'"total":', b'"total":1'), headers), *rows[6:]]


PREDICTIONS = {
    "lost": lambda rows: [*rows[:5], *rows[6:]],
    "duplicate": lambda rows: [*rows, rows[5]],
    "reordered": lambda rows: [*rows[:5], rows[6], rows[5], *rows[7:]],
    "mismatched": change_name,
    "invented": lambda rows: [*rows, (b"k", b"no prediction", [])],
    # Beyond the committed offset, as of a transaction that was aborted.
    "aborted read": lambda rows: [
        *rows,
        (b"k", json.dumps({**json.loads(rows[-1][1]), "source": [1, 1 << 20]}).encode(), []),
    ],
}


@pytest.mark.parametrize("anomaly", PREDICTIONS)
def test_a_break_in_the_predictions_is_named(finished, verified, copied_topic, anomaly):
    """A copy of the topic with one thing wrong gives that anomaly and exit code 1."""
    topic = copied_topic("predictions", first_of(1)(PREDICTIONS[anomaly]))
    code, said, found = verified(output={"topic": topic, "parquet": str(finished.parquet)})
    assert (code, found) == (BROKEN, {(anomaly, topic)})
    assert all(one["examples"] for one in said["anomalies"])


@pytest.mark.parametrize(
    ("anomaly", "edit"),
    [("lost", lambda rows: rows[1:]), ("duplicate", lambda rows: [*rows, rows[0]])],
)
def test_a_break_in_the_dead_letters_is_named(verified, copied_topic, anomaly, edit):
    """A letter that is gone is a loss, one that stands there twice a duplicate."""
    topic = copied_topic("dead", edit, partitions=1)
    code, _, found = verified(dead_letters={"topic": topic})
    assert (code, found) == (BROKEN, {(anomaly, topic)})


def tear(files):
    files[0].write_bytes(files[0].read_bytes()[:-10])


def remove(files):
    files[0].unlink()


def repeat(files):
    shutil.copy(files[0], files[0].with_name("copy.parquet"))


def rewrite(change):
    def plant(files):
        table = pq.read_table(files[0], partitioning=None)
        pq.write_table(change(table), files[0])

    return plant


def halve(table):
    return table.slice(0, table.num_rows // 2)


def swap(table):
    return pa.concat_tables([table.slice(1, 1), table.slice(0, 1), table.slice(2)])


def change(table):
    place = table.schema.get_field_index("total")
    values = table["total"].to_pylist()
    values[3] += 1
    return table.set_column(place, table.schema.field("total"), pa.array(values, pa.float32()))


def not_committed(table):
    place = table.schema.get_field_index("offset")
    row = table.slice(0, 1)
    row = row.set_column(place, table.schema.field("offset"), pa.array([1 << 20], pa.int64()))
    return pa.concat_tables([table, row])


FILES = {
    "torn: cut": tear,
    "torn: half of its rows": rewrite(halve),
    "lost": remove,
    "duplicate": repeat,
    "reordered": rewrite(swap),
    "mismatched": rewrite(change),
    "aborted read": rewrite(not_committed),
}


@pytest.mark.parametrize("case", FILES)
def test_a_break_in_the_files_is_named(finished, verified, tmp_path, case):
    """A copy of the folder with one file changed gives that anomaly and exit code 1."""
    shutil.copytree(finished.parquet, tmp_path / "out")
    FILES[case](sorted((tmp_path / "out" / finished.job).rglob("*.parquet")))
    code, _, found = verified(output={"parquet": str(tmp_path / "out")})
    assert (code, found) == (BROKEN, {(case.partition(":")[0], "Parquet")})


def test_at_least_once_allows_repeats_and_counts_them(finished, verified, copied_topic):
    """The same copy is broken under one promise and fine under the other."""
    topic = copied_topic("predictions", lambda rows: [*rows, *rows[3:6]])
    output = {"topic": topic, "parquet": str(finished.parquet)}
    code, said, _ = verified(output=output, delivery="at_least_once")
    assert (code, said["repeated"]) == (OK, 3 * PARTITIONS)
    code, said, found = verified(output=output)
    assert (code, found) == (BROKEN, {("duplicate", topic)})


def delete_below(bootstrap, topic, offset, partitions=PARTITIONS):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    asked = [TopicPartition(topic, number, offset) for number in range(partitions)]
    for future in admin.delete_records(asked).values():
        future.result(SECONDS)


def set_policy(bootstrap, topic, policy):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    entry = ConfigEntry("cleanup.policy", policy, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(SECONDS)


def test_what_retention_removed_is_not_checkable(finished, verified, copied_topic):
    """The rest is looked at and its range printed, and a break in it is still a break."""
    topic = copied_topic("predictions")
    delete_below(finished.bootstrap, topic, 20)
    output = {"topic": topic, "parquet": str(finished.parquet)}
    code, said, found = verified(output=output)
    assert (code, said["result"], found) == (UNKNOWN, "not checkable", set())
    assert all(one["first"] > 0 and not one["whole"] for one in said["partitions"])
    assert len(said["not_checkable"]) == PARTITIONS
    topic = copied_topic("dead", lambda rows: [*rows[:30], *rows[31:]], partitions=1)
    delete_below(finished.bootstrap, topic, 10, 1)
    code, _, found = verified(output=output, dead_letters={"topic": topic})
    assert (code, found) == (BROKEN, {("lost", topic)})


def test_what_compaction_may_remove_is_not_checkable(finished, verified, copied_topic, capsys):
    """Nothing is said of a compacted output; beside a compacted input the rest is looked at."""
    topic = copied_topic("predictions")
    set_policy(finished.bootstrap, topic, "compact")
    content = yaml.safe_load(finished.config.read_text(encoding="utf-8"))
    content["output"] |= {"topic": topic}
    path = finished.folder / "compacted.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert main(["verify", str(path)]) == UNKNOWN
    assert "cleanup.policy=compact" in capsys.readouterr().err
    events = f"{finished.job}.events"
    set_policy(finished.bootstrap, events, "compact")
    try:
        code, said, found = verified()
    finally:
        set_policy(finished.bootstrap, events, "delete")
    assert (code, said["result"], found) == (UNKNOWN, "not checkable", set())


def test_a_folder_that_is_not_here_is_not_checkable(verified, tmp_path):
    """From a machine that does not mount the files nothing is said of them."""
    code, said, _ = verified(output={"parquet": str(tmp_path / "elsewhere")})
    assert code == UNKNOWN
    assert "where it is mounted" in said["not_checkable"][0]


def test_an_open_transaction_is_not_checkable(finished, copied_topic, capsys, monkeypatch):
    """What a stranger's open transaction holds back from readers is named."""
    topic = copied_topic("predictions")
    settings = {"bootstrap.servers": finished.bootstrap, "transactional.id": topic}
    stranger = Producer(settings)
    stranger.init_transactions(SECONDS)
    stranger.begin_transaction()
    stranger.produce(topic, b"open", partition=0)
    stranger.flush(SECONDS)
    monkeypatch.setattr(kafka_python, "STABLE_SECONDS", 1.0)
    content = yaml.safe_load(finished.config.read_text(encoding="utf-8"))
    content["output"] |= {"topic": topic}
    path = finished.folder / "open.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert main(["verify", str(path)]) == UNKNOWN
    assert f"reading {topic}/0: an open transaction" in capsys.readouterr().err
    stranger.abort_transaction(SECONDS)
    assert main(["verify", str(path)]) == OK, "aborted records are not seen"


def test_a_job_that_has_not_run_is_not_checkable(finished, tmp_path, topic_prefix, capsys):
    """Without committed offsets there is nothing to hold it to; missing topics are named first."""
    config = small_job.make(tmp_path, topic_prefix, finished.bootstrap)
    assert main(["verify", str(config)]) == 4
    assert "create-topics" in capsys.readouterr().err
    assert main(["create-topics", str(config), "--partitions", "2"]) == 0
    assert main(["verify", str(config)]) == UNKNOWN
    assert "the job has not run" in capsys.readouterr().err


# kafka-python leaves the socket of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_no_broker_is_not_an_anomaly(tmp_path, topic_prefix, capsys, monkeypatch):
    """The exit code for anomalies is not that of a broker which does not answer."""
    monkeypatch.setattr(kafka_python, "BOOTSTRAP_MS", 500)
    config = small_job.make(tmp_path, topic_prefix, "127.0.0.1:1")
    assert main(["verify", str(config)]) == UNKNOWN
    assert "connecting" in capsys.readouterr().err
    gc.collect()


@pytest.mark.long
def test_a_running_job_is_verified_up_to_its_commits(finished, topic_prefix, tmp_path):
    """While it scores, whatever is committed holds, again and again."""
    counts = {"events": PARTITIONS, "predictions": PARTITIONS, "dead": 1, "journal": PARTITIONS}
    create_topics(finished.bootstrap, {f"{topic_prefix}.{name}": n for name, n in counts.items()})
    config = small_job.make(
        tmp_path,
        topic_prefix,
        finished.bootstrap,
        placement="local",
        slots=2,
        roll={"interval_seconds": 1},
        commit={"interval_ms": 20},
    )
    stop = threading.Event()

    def feed():
        producer = Producer({"bootstrap.servers": finished.bootstrap})
        while not stop.wait(0.1):
            for key, value, number in records(20):
                producer.produce(f"{topic_prefix}.events", value, key, number)
            producer.flush(SECONDS)

    feeding = threading.Thread(target=feed)
    command = [sys.executable, "-m", "pipeline.cli", "verify", str(config), "--json"]
    seen, known, deadline = [], set(), time.monotonic() + RUNNING_SECONDS
    with subprocess.Popen(run_arguments(config), env=environment()) as running:
        feeding.start()
        try:
            while len(seen) < 3:
                while (files := set((tmp_path / "out" / topic_prefix).rglob("*.parquet"))) == known:
                    assert running.poll() is None
                    assert time.monotonic() < deadline
                    stop.wait(0.2)
                known = files
                done = subprocess.run(
                    command, env=environment(), stdout=subprocess.PIPE, check=False
                )
                said = json.loads(done.stdout)
                assert (done.returncode, said["anomalies"]) == (OK, [])
                at = sum(one["next"] for one in said["partitions"])
                if at not in seen:
                    seen.append(at)
        finally:
            stop.set()
            feeding.join()
            running.terminate()
    assert seen == sorted(seen), "it goes on, and nothing is taken back"
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, check=False)
    assert (done.returncode, json.loads(done.stdout)["result"]) == (OK, "ok")


def test_a_claim_whose_epoch_does_not_increase_is_named(finished, verified):
    """What stands in the journal after it is of a writer that should have ended."""
    topic = f"{finished.job}.journal"
    rolls = [
        value
        for key, value, _ in read(finished.bootstrap, topic, 0)
        if journal.read_key(key).kind == journal.ROLL
    ]
    producer = Producer({"bootstrap.servers": finished.bootstrap})
    producer.produce(topic, rolls[0], journal.ROLL_KEY, 0)
    assert producer.flush(SECONDS) == 0
    code, _, found = verified()
    assert code == BROKEN
    assert ("stale epoch", "journal") in found


def test_an_input_and_a_journal_that_retention_cut_are_not_checkable(finished, verified):
    """Both shorten what is looked at, and that is said of each partition."""
    delete_below(finished.bootstrap, f"{finished.job}.events", 10)
    _, said, _ = verified()
    assert all("the input" in reason for reason in said["not_checkable"])
    assert len(said["not_checkable"]) == PARTITIONS
    delete_below(finished.bootstrap, f"{finished.job}.journal", 2, 2)
    _, said, _ = verified()
    assert all("the journal" in reason for reason in said["not_checkable"])

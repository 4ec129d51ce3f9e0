"""configs/recommend.yaml on a real broker: run, verified, submitted, and read by Ray Data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml
from runs import produce, topics

from pipeline.cli import main

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS, SECONDS = 2, 240.0
GOOD = [b'{"id": %d, "user": 7, "history": [%d, 9, 12]}' % (n, n % 240 + 1) for n in range(400)]
BAD = [b'{"id": 1', b'{"id": 1, "user": 1, "history": []}', b'{"id": 1, "history": ["9"]}']


@pytest.fixture
def config(kafka, topic_prefix, tmp_path, monkeypatch):
    """Give the shipped config under a name of its own, in a folder as a user has it."""
    path = tmp_path / "configs" / "recommend.yaml"
    path.parent.mkdir()
    content = yaml.safe_load((ROOT / "configs" / path.name).read_text(encoding="utf-8"))
    content |= {"job": topic_prefix, "replicas": 1, "slots": 1, "metrics": {"port": None}}
    content["input"]["topic"] = f"{topic_prefix}.events"
    content["output"]["topic"] = f"{topic_prefix}.predictions"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    for name in ("jobs", "pipeline", "models"):
        (tmp_path / name).symlink_to(ROOT / name)
    topics(kafka.bootstrap, topic_prefix, PARTITIONS)
    records = [(b"k%d" % n, value, None) for n, value in enumerate([*GOOD, *BAD])]
    produce(kafka.bootstrap, f"{topic_prefix}.events", records, PARTITIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap)
    return path


def ran(*arguments, **variables):
    """Run a module as a user does in the folder; Ray is only where the arguments say."""
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def assert_all_was_ranked(config, job, capsys):
    """Each event has its list or is a dead letter, and `verify` finds nothing wrong with them."""
    rows = ds.dataset(config.parents[1] / "out" / job, partitioning="hive").to_table()
    assert sorted(rows["id"].to_pylist()) == list(range(len(GOOD)))
    assert {len(one) for one in rows["items"].to_pylist()} == {10}
    capsys.readouterr()
    assert main(["verify", str(config), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["result"], said["anomalies"], said["not_checkable"]) == ("ok", [], [])
    assert (said["predictions"], said["dead_letters"]) == (len(GOOD), len(BAD))
    assert said["files"] > 0
    return rows


def change_a_list(file):
    """Turn the list of the file's first row round."""
    table = pq.read_table(file, partitioning=None)
    lists = table["items"].to_pylist()
    lists[0].reverse()
    place, field = table.schema.get_field_index("items"), table.schema.field("items")
    pq.write_table(table.set_column(place, field, pa.array(lists, field.type)), file)


# Ray Data warns of settings of its own that it reads itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_job_keeps_its_promise_and_ray_data_reads_its_lists(
    config, cluster, topic_prefix, capsys
):
    """Lists are read by Ray Data as by Arrow, and `verify` holds each of them to the journal."""
    ran("jobs.recommend", "--until-caught-up", *cluster)
    rows = assert_all_was_ranked(config, topic_prefix, capsys).select(["id", "items", "scores"])
    import ray

    read = ray.data.read_parquet(str(config.parents[1] / "out" / topic_prefix))
    schema = read.schema()
    types = dict(zip(schema.names, schema.types, strict=True))
    assert (types["items"], types["scores"]) == (rows["items"].type, rows["scores"].type)
    found = {row["id"]: row for row in read.select_columns(["id", "items", "scores"]).take_all()}
    for row in rows.to_pylist():
        assert list(found[row["id"]]["items"]) == row["items"]
        assert list(found[row["id"]]["scores"]) == row["scores"]
    change_a_list(next((config.parents[1] / "out" / topic_prefix).rglob("date=*/*.parquet")))
    assert main(["verify", str(config), "--json"]) == 1
    (anomaly,) = json.loads(capsys.readouterr().out)["anomalies"]
    assert anomaly["anomaly"] == "mismatched"
    assert "items is [" in anomaly["examples"][0]


def test_a_model_that_another_library_exported_ranks_candidates(
    config, cluster, topic_prefix, kafka
):
    """Each event's own candidates, and no others, are ranked by a graph that Keras named."""
    offered = {len(GOOD) + n: [n % 240 + 1, 9, 12, (n + 77) % 240 + 1] for n in range(200)}
    events = [
        {"id": n, "user": n % 400 + 1, "candidates": listed, "history": [12]}
        for n, listed in offered.items()
    ]
    records = [(None, json.dumps(event).encode(), None) for event in events]
    produce(kafka.bootstrap, f"{topic_prefix}.events", records, PARTITIONS)
    # What came without candidates becomes dead letters, as model.yaml asks for them.
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    content |= {"model": "models/recommend-pairs", "dead_letters": {"max_dead_ratio": 1}}
    config.write_text(yaml.safe_dump(content))
    ran("jobs.recommend", "--until-caught-up", *cluster)
    rows = ds.dataset(config.parents[1] / "out" / topic_prefix, partitioning="hive").to_table()
    assert sorted(rows["id"].to_pylist()) == sorted(offered)
    for row in rows.to_pylist():
        assert sorted(row["items"]) == sorted({*offered[row["id"]]} - {12})


def test_the_submitted_job_keeps_its_promise(config, head, topic_prefix, capsys):
    """`headrace submit` takes the model and its vocabulary along, and its outputs verify."""
    where = ["--address", head.dashboard, "--env", "KAFKA_BOOTSTRAP_SERVERS", "--wait"]
    arguments = [f"configs/{config.name}", *where, "--", "--until-caught-up"]
    ran("pipeline.cli", "submit", *arguments, **head.token)
    assert_all_was_ranked(config, topic_prefix, capsys)

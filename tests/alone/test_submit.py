"""`headrace submit` to a real Ray head, and `headrace status` of the run that it starts."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.dataset as ds
import pytest
import small_job
import yaml

from jobs.local_broker import create_topics
from pipeline.produce import produce

SECONDS = 120.0
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def job(kafka, topic_prefix, tmp_path):
    """A folder as a user has it: package, model and config, with relative paths in the config."""
    config = small_job.make(tmp_path, topic_prefix, kafka.bootstrap)
    content = yaml.safe_load(config.read_text())
    content |= {
        "model": f"models/{topic_prefix}",
        "kafka": {"bootstrap.servers": "${BROKERS}"},
        "output": {"parquet": "./out"},
        "replicas": 1,
        "slots": 1,
    }
    config.write_text(yaml.safe_dump(content))
    (tmp_path / "pipeline").symlink_to(ROOT / "pipeline")
    topics = dict.fromkeys(("events", "predictions", "journal"), 2) | {"dead": 1}
    create_topics(
        kafka.bootstrap,
        {f"{topic_prefix}.{name}": count for name, count in topics.items()},
        {"max.message.bytes": "2000000"},
    )
    return config


def send(kafka, topic_prefix, count):
    values = (json.dumps({"features": [1, 2, number]}).encode() for number in range(count))
    records = ((None, value) for value in values)
    summary = produce(records, {"bootstrap.servers": kafka.bootstrap}, f"{topic_prefix}.events")
    assert summary.delivered == count


def headrace(kafka, folder, token, *arguments):
    """Run the command in the folder, as a user does."""
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return ran(command, folder, {"BROKERS": kafka.bootstrap, **token})


def ran(command, folder, variables):
    environment = {**os.environ, **variables}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def rows(folder, job):
    return ds.dataset(folder / "out" / job, format="parquet", partitioning="hive").to_table()


def test_a_submitted_job_writes_where_it_was_submitted(kafka, head, job, topic_prefix, tmp_path):
    """--wait ends with the job's success, and its Parquet rows are in the user's own folder."""
    send(kafka, topic_prefix, 3000)
    arguments = [f"configs/{job.name}", "--address", head.dashboard, "--env", "BROKERS", "--wait"]
    done = headrace(kafka, tmp_path, head.token, "submit", *arguments, "--", "--until-caught-up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"submitted headrace-{topic_prefix}-" in done.stdout
    assert "ray job stop --address" in done.stdout
    table = rows(tmp_path, topic_prefix)
    assert sorted(table["total"].to_pylist()) == [3.0 + number for number in range(3000)]
    # A job that fails gives its own exit code.
    done = headrace(kafka, tmp_path, head.token, "submit", *arguments[:3], "--wait")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "BROKERS" in done.stdout


def test_a_running_job_shows_how_it_stands_and_drains(kafka, head, job, topic_prefix, tmp_path):
    """`status` reads the run's board, and Ray's stop leaves every record in Parquet."""
    arguments = [f"configs/{job.name}", "--address", head.dashboard, "--env", "BROKERS"]
    done = headrace(kafka, tmp_path, head.token, "submit", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    job_id = done.stdout.split()[1]
    try:
        send(kafka, topic_prefix, 2000)
        deadline = time.monotonic() + SECONDS
        run = None
        while run is None or run["records_in"] < 2000:
            assert time.monotonic() < deadline
            asked = [f"configs/{job.name}", "--address", head.address, "--json"]
            done = headrace(kafka, tmp_path, head.token, "status", *asked)
            assert done.returncode == 0, done.stderr
            run = json.loads(done.stdout)["run"]
        assert (run["state"], run["model_version"], len(run["slots"])) == ("running", "1", 1)
        said = headrace(kafka, tmp_path, head.token, "status", *asked[:3]).stdout
        assert f"{topic_prefix}.events" in said
        assert "running, exactly_once, placement remote" in said
    finally:
        ray = str(Path(sys.executable).parent / "ray")
        stopped = ran(
            [ray, "job", "stop", "--address", head.dashboard, job_id], tmp_path, head.token
        )
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert rows(tmp_path, topic_prefix).num_rows == 2000


def test_a_cluster_that_wants_a_token_says_so(kafka, head, job, tmp_path):
    """Without the token the command ends plainly, with the variables to set."""
    arguments = [f"configs/{job.name}", "--address", head.dashboard, "--env", "BROKERS"]
    done = headrace(kafka, tmp_path, {"RAY_AUTH_MODE": "disabled"}, "submit", *arguments)
    assert done.returncode == 4
    assert "the cluster asks for a token" in done.stderr
    assert "Traceback" not in done.stderr

"""Replicas on a GPU in a whole run, where the machine has one."""

import json
import signal

import pytest
import small_job
from audit import assert_exactly_once, assert_ordered, outcome
from runs import committed, finished, good, produce, running, shown, topics, until

pytestmark = pytest.mark.usefixtures("cuda")


def test_replicas_share_a_gpu_beside_one_on_the_cpu(kafka, cluster, topic_prefix, tmp_path):
    """Two replicas hold half a GPU each, a third none, and each record is answered once."""
    topics(kafka.bootstrap, topic_prefix)
    fleet = {"count": 2, "gpu": 0.5, "cpu_replicas": 1}
    path = small_job.make(tmp_path, topic_prefix, kafka.bootstrap, replicas=fleet)
    config = small_job.read(path)
    places = produce(kafka.bootstrap, f"{topic_prefix}.events", good(5000))
    with running(path, tmp_path, *cluster) as process:
        until(lambda: committed(config, kafka.bootstrap) == len(places), "all is committed")

        def shares():
            run = json.loads(shown(path, *cluster, "--json"))["run"]
            return sorted(one["gpu"] for one in run["replicas"] if one["state"] == "ready")

        until(lambda: shares() == [0.0, 0.5, 0.5], "each replica has what it asked for")
        process.send_signal(signal.SIGTERM)
        finished(process)
    result = outcome(config, kafka.bootstrap)
    assert_exactly_once(result, set(places))
    assert_ordered(result)

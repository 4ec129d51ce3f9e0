"""What README.md tells its reader to type does what it says, in a folder as the reader has it."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
import yaml
from confluent_kafka.admin import AdminClient

from jobs.kafka_jars import BrokerUnavailable, java, kafka_jars
from jobs.local_broker import Broker, create_topics
from pipeline.config import Config
from pipeline.model_folder import load_files
from pipeline.settings import is_section, parse, settings_of

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 120.0
FLOWERS = 150
PAYMENTS = 1000
# The README's jobs; their topics and groups are named after them.
JOBS = ("iris", "fraud", "recommend")
WRITTEN_TO = {"configs", "models"}
# What `make test` and CI would hand down to a make of ours, or would lead to a broker or cluster.
NOT_THE_READERS = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "RAY_ADDRESS", "KAFKA_BOOTSTRAP_SERVERS"}


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its language and its text."""

    language: str
    text: str


BLOCKS = [Block(language, text) for language, text in FENCE.findall(README)]
PROSE = FENCE.sub("", README)
INLINE = re.findall(r"`((?:make|headrace|python|ray|docker) [^`]+)`", PROSE)


@dataclass(slots=True)
class Reader:
    """Somebody who follows the README: a clone, a shell's variables, and perhaps a Ray head."""

    folder: Path
    variables: dict[str, str]
    fixture: Callable[[str], object]
    said: list[str] = field(default_factory=list)

    def run(self, command: list[str], block: str, stdin: str | None = None) -> str:
        """Run it and give what it prints; fails with the block where the command fails."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.variables,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        said = f"This block of README.md:\n{block}\nended with {done.returncode} and said:\n"
        assert done.returncode == 0, said + done.stdout
        return done.stdout

    def shell(self, text: str) -> str:
        """Type the lines into the shell, which keeps what they export."""
        after = self.folder / ".variables"
        said = self.run(["bash", "-eux", "-c", f"{text}\nenv -0 > {after}"], text)
        pairs = (pair.partition("=") for pair in after.read_text().split("\0") if pair)
        self.variables = {name: value for name, _, value in pairs}
        after.unlink()
        return said

    def status(self, job: str) -> dict[str, Any]:
        """How the job stands."""
        said = self.shell(f"headrace status configs/{job}.yaml --json")
        found: dict[str, Any] = json.loads(re.search(r"^{.*}$", said, re.MULTILINE)[0])
        return found

    def watch(self, job: str, records: int) -> dict[str, Any]:
        """How the run stands once it has read so many records."""
        command = ["headrace", "status", f"configs/{job}.yaml", "--json", "--watch"]
        deadline = time.monotonic() + SECONDS
        with subprocess.Popen(
            command, cwd=self.folder, env=self.variables, stdout=subprocess.PIPE, text=True
        ) as watching:
            assert watching.stdout is not None
            try:
                for line in watching.stdout:
                    run: dict[str, Any] | None = json.loads(line)["run"]
                    if run is not None and run["records_in"] >= records:
                        return run
                    assert time.monotonic() < deadline, line
            finally:
                watching.terminate()
        raise AssertionError(f"{' '.join(command)} ended with {watching.returncode}")

    def python(self, text: str) -> str:
        """Run the snippet."""
        return self.run(["python", "-"], text, text)


@pytest.fixture
def reader(tmp_path: Path, request: pytest.FixtureRequest) -> Reader:
    """Give a reader with a clone that `make setup` was run in."""
    folder = tmp_path / "headrace"
    folder.mkdir()
    for entry in ROOT.iterdir():
        if entry.name in WRITTEN_TO:
            shutil.copytree(entry, folder / entry.name)
        elif not entry.name.startswith((".", "out")):
            (folder / entry.name).symlink_to(entry)
    environment = folder / ".venv"
    environment.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != ".ready":
            (environment / entry.name).symlink_to(entry)
    (environment / ".ready").touch()  # newer than what it is made of, so that make is content
    variables = {name: value for name, value in os.environ.items() if name not in NOT_THE_READERS}
    return Reader(folder, variables, request.getfixturevalue)


@pytest.fixture
def clean_kafka(kafka: Broker) -> Iterator[Broker]:
    """Give the broker without topics and groups of the README's jobs, also afterwards."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})

    def theirs(names: list[str]) -> list[str]:
        return [name for name in names if name.partition(".")[0] in JOBS]

    def topics() -> list[str]:
        return theirs(list(admin.list_topics(timeout=SECONDS).topics))

    if there := topics():
        # On a broker of somebody's own they may hold what must not be lost.
        pytest.fail(f"{there} are there already: delete them, or unset KAFKA_BOOTSTRAP_SERVERS")
    yield kafka
    made = topics()
    for topic in admin.delete_topics(made).values() if made else ():
        topic.result(SECONDS)
    groups = admin.list_consumer_groups(request_timeout=SECONDS).result().valid
    left = theirs([group.group_id for group in groups])
    for group in admin.delete_consumer_groups(left).values() if left else ():
        group.result(SECONDS)


def dry_run(reader: Reader, block: Block) -> None:
    """`make demo` has test_demo, and `make test` is what runs this: their recipes are looked at."""
    recipes = {"demo": "-m jobs.demo --broker embedded", "test": "-m pytest"}
    for line in block.text.splitlines():
        target = line.removeprefix("make ")
        assert recipes[target] in reader.run(["make", "-n", target], block.text)


def shell(reader: Reader, block: Block) -> None:
    reader.said.append(reader.shell(block.text))


def python(reader: Reader, block: Block) -> None:
    reader.said.append(reader.python(block.text))


def score_flowers(reader: Reader, block: Block) -> None:
    """The flowers and an event that is none are all accounted for."""
    with (reader.folder / "iris.ndjson").open("a") as file:
        file.write('{"X": "a rose"}\n')
    said = reader.shell(block.text)
    assert "An event that the model accepts" in said
    assert "all is well" in said
    assert f"iris.events: {FLOWERS + 1} " in said
    assert re.search(r"lag +0 records", said), said


def read_flowers(reader: Reader, block: Block) -> None:
    said = reader.python(block.text)
    assert said.startswith(f"{FLOWERS} ['topic', 'partition', 'offset', 'key', "), said


def recommend(reader: Reader, block: Block) -> None:
    """The one visit has its ten items in Parquet."""
    reader.shell(block.text)
    (row,) = ds.dataset(reader.folder / "out/recommend", partitioning="hive").to_table().to_pylist()
    assert row["user"] == 7
    assert len(row["items"]) == len(row["scores"]) == 10


def replay_letters(reader: Reader, block: Block) -> None:
    """The event that is no flower is listed by its reason and sent back."""
    said = reader.shell(block.text)
    assert "InvalidField" in said
    assert "1 records sent back to iris.events" in said


def keep_the_offsets(reader: Reader, block: Block) -> None:
    """Nothing is gone, so that every partition stays where it stood."""
    assert "0 of 4 partitions of iris.events go on elsewhere" in reader.shell(block.text)


def verify_flowers(reader: Reader, block: Block) -> None:
    """The job that the reader has just run has kept its promise."""
    said = reader.shell(block.text)
    assert f"{FLOWERS} predictions and 1 dead letters" in said
    assert re.search(r"^ok$", said, re.MULTILINE), said


def use_a_cluster(reader: Reader, block: Block) -> None:
    """The job runs on a real head; stopped as `submit` says, it has finished what it was given."""
    head = reader.fixture("head")
    assert "http://127.0.0.1:8265" in block.text
    # Two feeders are enough here; `create-topics` keeps a topic that is there.
    create_topics(reader.variables["KAFKA_BOOTSTRAP_SERVERS"], {"fraud.events": 2})
    reader.variables |= head.token
    # The reader's head is this machine's own, and so needs no name.
    reader.variables["RAY_ADDRESS"] = head.address
    said = reader.shell(block.text.replace("http://127.0.0.1:8265", head.dashboard))
    stop = re.search(r"stop it: +(.*?) +\(it drains first\)", said)
    assert stop, said
    try:
        holdout = "data/creditcard/holdout.parquet --config configs/fraud.yaml"
        reader.shell(f"headrace produce {holdout} --limit {PAYMENTS}")
        run = reader.watch("fraud", PAYMENTS)
        assert run["state"] == "running"
    finally:
        reader.shell(stop[1])
    after = reader.status("fraud")
    assert (after["lag"], after["run"]) == (0, None)
    assert ds.dataset(reader.folder / "out/fraud", partitioning="hive").count_rows() == PAYMENTS


def parse_config(reader: Reader, block: Block) -> None:
    config = parse(yaml.safe_load(block.text), reader.folder, {})
    assert isinstance(config, Config)
    assert (config.model / "1" / "model.yaml").is_file()


def parse_scaling(reader: Reader, block: Block) -> None:
    """The block goes into any config."""
    job = {"job": "fraud", "model": "models/fraud", "kafka": {"bootstrap.servers": "localhost:1"}}
    config = parse(job | yaml.safe_load(block.text), reader.folder, {})
    assert config.replicas.max_replicas == 20


def parse_model(reader: Reader, block: Block) -> None:
    """The block is a model.yaml, but for the sum of a model that it does not name."""
    folder = reader.folder / "models" / "shown" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"")
    digest = hashlib.sha256(b"").hexdigest()
    text, count = re.subn(r"^sha256: \w+…", f"sha256: {digest}", block.text)
    assert count == 1
    (folder / "model.yaml").write_text(text, encoding="utf-8")
    spec = load_files(folder).spec
    assert [one.name for one in spec.inputs] == ["features", "user"]


# By language and a text that is in the block: what a test does with it.
RULES: dict[tuple[str, str], Callable[[Reader, Block], None]] = {
    ("bash", "make demo"): dry_run,
    ("bash", "make test"): dry_run,
    ("bash", "export PATH="): shell,
    ("python", "iris.onnx"): python,
    ("bash", "headrace run configs/iris.yaml"): score_flowers,
    ("python", "pyarrow.dataset"): read_flowers,
    ("python", "duckdb"): python,
    ("yaml", "job: fraud"): parse_config,
    ("yaml", "min_replicas:"): parse_scaling,
    ("yaml", "sha256:"): parse_model,
    ("bash", "headrace run configs/recommend.yaml"): recommend,
    ("bash", "headrace dlq"): replay_letters,
    ("bash", "headrace offsets"): keep_the_offsets,
    ("bash", "headrace verify"): verify_flowers,
    ("bash", "headrace submit"): use_a_cluster,
}


def claims(block: Block) -> list[tuple[str, str]]:
    return [rule for rule in RULES if rule[0] == block.language and rule[1] in block.text]


def test_every_block_has_one_rule() -> None:
    """Each fenced block is known to this file, and each rule here still has its block."""
    assert README.count("```") == 2 * len(BLOCKS), "a fence without a language: name one"
    for block in BLOCKS:
        assert len(claims(block)) == 1, f"teach me to run this, {claims(block)}:\n{block.text}"
    claimed = [rule for block in BLOCKS for rule in claims(block)]
    assert sorted(claimed) == sorted(RULES)


def test_a_reader_gets_what_the_readme_says(reader: Reader, clean_kafka: Broker) -> None:
    """All blocks, from the first to the last in one folder and one shell, do what they say."""
    reader.variables["KAFKA_BOOTSTRAP_SERVERS"] = clean_kafka.bootstrap
    for block in BLOCKS:
        (rule,) = claims(block)
        RULES[rule](reader, block)
    said = "".join(reader.said)
    assert f"KAFKA_BOOTSTRAP_SERVERS={clean_kafka.bootstrap}" in said
    assert "model_version" in said
    assert "count_star()" in said


@pytest.mark.parametrize("command", sorted(set(INLINE)))
def test_a_command_in_a_sentence_works(reader: Reader, command: str) -> None:
    """Each is part of a block, or works as far as it ends by itself: else its help is asked for."""
    first, *rest = command.split()
    if first == "make":
        reader.run(["make", "-n", *rest], command)
    elif not any(command in block.text for block in BLOCKS):
        reader.variables["PATH"] = f"{reader.folder}/.venv/bin:{reader.variables['PATH']}"
        flags = [] if command == "headrace explain" else ["--help"]
        assert reader.run([*command.split(), *flags], command)
        configs = [word for word in rest if word.endswith(".yaml")]
        assert all((reader.folder / config).is_file() for config in configs)


def test_settings_in_sentences_exist() -> None:
    """Each dotted name of a section that the README mentions is a setting."""
    sections = {
        one.name: settings_of(hint) for one, hint in settings_of(Config) if is_section(hint)
    }
    named = re.findall(rf"`({'|'.join(sections)})\.(\w+)[^`]*`", PROSE)
    assert named
    for section, name in named:
        assert name in {one.name for one, _ in sections[section]}, f"{section}.{name}"


def test_links_lead_somewhere() -> None:
    """Each relative link names a file of the repository."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", PROSE)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make_up_gives_a_broker_until_ctrl_c(reader: Reader) -> None:
    """Without Docker it prints the line that exports an address, and Ctrl-C ends the broker."""
    try:
        java(), kafka_jars()
    except BrokerUnavailable as error:
        pytest.skip(f"needs Kafka's jars: {error}")
    docker = reader.folder / "without" / "docker"
    docker.parent.mkdir()
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    reader.variables["PATH"] = f"{docker.parent}:{reader.variables['PATH']}"
    log = reader.folder / "up.log"
    with log.open("w") as output:
        running = subprocess.Popen(
            ["make", "up"],
            cwd=reader.folder,
            env=reader.variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C reaches make and what it started
        )
    try:
        deadline = time.monotonic() + SECONDS
        line = re.compile(r"^export KAFKA_BOOTSTRAP_SERVERS=(\S+):(\d+)\n", re.MULTILINE)
        while not (found := line.search(log.read_text())):
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        address = (found[1], int(found[2]))
        socket.create_connection(address, SECONDS).close()
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGINT)
        running.wait(SECONDS)
    assert "Traceback" not in log.read_text()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, SECONDS)

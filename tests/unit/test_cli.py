"""The command `headrace` as far as it needs neither Kafka nor Ray."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import settings
from pipeline.cli import main
from pipeline.errors import ConfigInvalid

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "job: a\nmodel: models/fraud\nkafka: {bootstrap.servers: '127.0.0.1:1'}\n"


def test_every_mistake_is_one_plain_line(tmp_path, capsys):
    """A config with three mistakes prints three lines, no traceback, and exits with 2."""
    path = tmp_path / "job.yaml"
    path.write_text("job: a.b\nmodel: 7\ngroop: x\nkafka: {bootstrap.servers: 'h:1'}\n")
    assert main(["run", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("headrace: ") and " = " in line for line in lines)
    assert any("groop" in line and "Did you mean group?" in line for line in lines)


def test_check_shows_the_mistakes_of_every_file(tmp_path, capsys):
    """One run of check names each file that is wrong."""
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text("job: 7\n")
    assert main(["check", str(tmp_path / "one.yaml"), str(tmp_path / "two.yaml")]) == 2
    errors = capsys.readouterr().err
    for name in ("one.yaml", "two.yaml"):
        assert f"{tmp_path / name}: model = None: is missing" in errors


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["walk"],
        ["run"],
        ["run", "a.yaml", "--", "--until-caught-up"],
        ["produce", "a.parquet"],
        ["produce", "a.parquet", "--bootstrap", "h:1", "--rate", "0"],
        ["create-topics", "a.yaml", "--partitions", "0"],
        ["dlq"],
        ["offsets", "a.yaml"],
        ["offsets", "a.yaml", "--to", "yesterday"],
        ["offsets", "a.yaml", "--to", "2026-01-31T08:00:00"],
        ["submit", "a.yaml"],
    ],
)
def test_a_wrong_command_line_says_how_it_is_used(arguments, capsys):
    """What the command does not know ends it with 2 and its usage."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: headrace" in capsys.readouterr().err


def test_version_and_settings(capsys):
    """`--version` names the version, `explain` each setting."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("headrace 0.")
    assert main(["explain"]) == 0
    assert "batching.max_batch_size" in capsys.readouterr().out


def test_init_says_how_to_go_on(tmp_path, capsys):
    """After `init` its config is right, and the next commands are on the screen."""
    model = ROOT / "models" / "fraud" / "1" / "model.onnx"
    assert main(["init", str(model), "--job", "mine", "--directory", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    config = tmp_path / "configs" / "mine.yaml"
    assert f"wrote {config}" in said
    assert settings.load(config, {}).job == "mine"
    event = next(line for line in said if line.startswith("  {"))
    assert isinstance(json.loads(event), dict)
    commands = ["create-topics", "check", "run"]
    assert said[-3:] == [f"  headrace {command} configs/mine.yaml" for command in commands]


def test_init_of_no_model_is_a_mistake(tmp_path, capsys):
    """A file that is missing, or no model, is named."""
    (tmp_path / "text.onnx").write_text("text")
    for name, said in (("none.onnx", "cannot be read"), ("text.onnx", "can't be opened")):
        assert main(["init", str(tmp_path / name), "--directory", str(tmp_path)]) == 2
        assert said in capsys.readouterr().err


def test_produce_needs_a_topic(capsys):
    """Brokers alone do not say where to."""
    assert main(["produce", "a.parquet", "--bootstrap", "127.0.0.1:1"]) == 2
    assert "--topic = None: is missing" in capsys.readouterr().err


def test_submit_refuses_what_the_cluster_would_miss(tmp_path, monkeypatch, capsys):
    """A config outside of the folder that goes along, and a variable that is not set, are named."""
    (tmp_path / "job.yaml").write_text(CONFIG)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("NOT_SET", raising=False)
    arguments = ["submit", "../job.yaml", "--address", "http://127.0.0.1:1", "--env", "NOT_SET"]
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert "lies outside of the current directory" in errors
    assert "--env = 'NOT_SET': is not set here" in errors


def test_a_relative_folder_starts_where_the_job_was_submitted(tmp_path, monkeypatch):
    """HEADRACE_DIRECTORY moves output.parquet, and nothing else."""
    (tmp_path / "job.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    for text, folder in (("", "out"), ("output: {parquet: there}\n", "there")):
        (tmp_path / "job.yaml").write_text(CONFIG + text)
        config = settings.load(Path("job.yaml"), {settings.DIRECTORY: "/home"})
        assert config.output.parquet == Path("/home") / folder
        assert config.model == tmp_path / "models/fraud"
    (tmp_path / "job.yaml").write_text(CONFIG + "output: {parquet: /there}\n")
    config = settings.load(Path("job.yaml"), {settings.DIRECTORY: "/home"})
    assert config.output.parquet == Path("/there")


def test_a_ray_job_may_not_write_into_its_copy(tmp_path, monkeypatch):
    """Without HEADRACE_DIRECTORY a relative folder would be deleted with Ray's copy."""
    (tmp_path / "job.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    ray = {settings.RAY_JOB: "{}"}
    with pytest.raises(ConfigInvalid, match="which is deleted after the job"):
        settings.load(Path("job.yaml"), ray)
    assert settings.load(Path("job.yaml"), {**ray, settings.DIRECTORY: "/home"}).job == "a"


def test_an_unwritten_command_starts_quickly():
    """Neither Ray nor ONNX Runtime is imported where a command does not need it."""
    code = (
        "import sys; from pipeline.cli import main; main(['explain']); "
        "sys.exit(bool({'ray', 'onnxruntime', 'confluent_kafka'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)

"""The benchmark's short form works and fills its table; how fast anything is plays no part."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from program import run_benchmark, run_module

from benchmarks import catalogue, gpu
from benchmarks.catalogue import GRAPHS
from benchmarks.outcome import Predictions, WrongOutput, check, check_parquet
from jobs.local_broker import Broker

CONTENDER = "headrace exactly_once remote"
RECORDS = {"cards": 50_000, "recommend": 20_000}
REFERENCE = np.linspace(0, 1, 2_000, dtype=np.float32)


@pytest.fixture(scope="module", params=["cards", pytest.param("recommend", marks=pytest.mark.long)])
def table(
    kafka: Broker, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, dict[str, str]]:
    """Give the table of one short run of each task: cells by column, by contender."""
    folder = tmp_path_factory.mktemp("results")
    options = ["--task", request.param, "--records", str(RECORDS[request.param])]
    options += ["--contenders", CONTENDER, "--output", str(folder)]
    run_benchmark("benchmarks.throughput", kafka.bootstrap, *options)
    (page,) = folder.glob("*.md")
    assert page.with_suffix(".png").stat().st_size > 0
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    columns, *cells = lines
    return {row[0]: dict(zip(columns, row, strict=True)) for row in cells}


def test_every_contender_has_its_figures(table: dict[str, dict[str, str]]) -> None:
    """A short run gives the bare loop and Headrace a rate, a ratio, CPU and memory."""
    assert list(table) == ["bare loop", CONTENDER]
    for row in table.values():
        for column in ("records/s", "ratio", "CPU µs/record"):
            assert float(row[column].replace(",", "")) > 0, (column, row)
        assert float(row["peak MiB (RSS)"].split()[-1].replace(",", "")) > 0


def test_the_cpu_is_told_by_role(table: dict[str, dict[str, str]]) -> None:
    """Headrace's CPU is split into its roles, none of which hides among Ray's own processes."""
    kinds = {part.rsplit(" ", 1)[0] for part in table[CONTENDER]["by process"].split(", ")}
    assert kinds >= {"driver", "feeder", "replica", "archiver", "raylet", "gcs_server"}


def predictions(ids: list[int], away: float = 0.0) -> Predictions:
    numbers = np.array(ids)
    return Predictions(numbers, REFERENCE[numbers].astype(np.float64) + away, np.zeros(len(ids)))


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """Give a folder whose Parquet file has the events 0, 1 and 2."""
    pq.write_table(pa.table({"id": [2, 0, 1]}), tmp_path / "rows.parquet")
    return tmp_path


@pytest.mark.long
def test_intervals_of_commits_are_compared(kafka: Broker, tmp_path: Path) -> None:
    """The short form has a row for each interval."""
    run_benchmark("benchmarks.commits", kafka.bootstrap, "--output", str(tmp_path))
    rows = [
        line for line in (tmp_path / "results.md").read_text().splitlines() if "| every" in line
    ]
    assert len(rows) == 5


def test_right_output_passes(parquet: Path) -> None:
    """Each event once in both outputs, in any order, with its score, is what is asked for."""
    check(predictions([1, 2, 0]), 3, REFERENCE)
    check_parquet(parquet, 3)


def test_unfinished_files_do_not_count(parquet: Path) -> None:
    """What a reader of the folder leaves out is left out here; a suffix plays no part."""
    (parquet / "rows.parquet").rename(parquet / "part-0")
    for name in (".part-0.inprogress", "_SUCCESS"):
        (parquet / name).write_text("no Parquet")
    check_parquet(parquet, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (predictions([0, 1]), "2 predictions of 2 events, expected 3 of each"),
        (predictions([0, 1, 1]), "3 predictions of 2 events"),
        (predictions([0, 1, 2], away=0.01), "away from the reference"),
    ],
)
def test_wrong_predictions_do_not_count(wrong: Predictions, message: str) -> None:
    """A lost, a repeated and a wrongly scored event each make a run worthless."""
    with pytest.raises(WrongOutput, match=message):
        check(wrong, 3, REFERENCE)


def test_missing_rows_do_not_count(tmp_path: Path) -> None:
    """Predictions without their Parquet rows make a run worthless."""
    with pytest.raises(WrongOutput, match="0 Parquet rows of 0 events"):
        check_parquet(tmp_path, 3)


def test_the_catalogue_is_measured_in_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    """Each graph ranks, and each size and batch has its row."""
    assert catalogue.main(["--items", "200", "300"]) == 0
    said = capsys.readouterr().out
    assert len(re.findall(r"^\| (200|300)( \| [\d,]+){3} \|$", said, re.MULTILINE)) == 2
    assert len(re.findall(r"^\| (1|16|256) \| [\d,]+ \|$", said, re.MULTILINE)) == 3


def test_graphs_of_a_catalogue_agree() -> None:
    """Told what is blocked or asked for more: the same lists come out."""
    lists = catalogue.histories(300, 20)
    told, asked = (catalogue.ranker(kind, 300).run({"history": lists}) for kind in GRAPHS[:2])
    assert told["items"].to_pylist() == asked["items"].to_pylist()


def test_slow_replicas_are_kept_at_work(kafka: Broker) -> None:
    """The rate is told beside the ideal, and the feeders' memory while the lag falls."""
    few = ["--replicas", "2", "--records", "20000", "--seconds", "3"]
    done = run_module("benchmarks.dispatching", *few, KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap)
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.search(r"2 replicas: ([\d.]+) calls/s of 4 .* MiB, lag ([\d,]+) to", done.stdout)
    assert told is not None, done.stdout
    assert 0 < float(told[1]) < 4.5
    assert 0 < int(told[2].replace(",", "")) < 20_000


def test_the_gpu_benchmark_measures_each_contender(capsys: pytest.CaptureFixture[str]) -> None:
    """On the CPU, where there is no GPU: every rate has its ratio to the bare loop."""
    chosen = ["--models", "sequence", "small mlp", "--batches", "64", "--seconds", "0"]
    assert gpu.main(["--cpu", "--replicas", "2", *chosen]) == 0
    said = capsys.readouterr().out
    rows = re.findall(r"^\| (.+?) \| 64( \| [\d,]+ \(\d+\.\d\d\)){4} \|$", said, re.MULTILINE)
    assert [name for name, _ in rows] == ["sequence", "small mlp"]

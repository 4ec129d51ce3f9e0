"""How a comparison chooses who takes part, and what its table says of those who failed."""

from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks import comparison
from benchmarks.comparison import Comparison
from benchmarks.contender import Contender
from benchmarks.crayfish import CRAYFISH, FEATURES
from benchmarks.lineup import beside
from benchmarks.ours import headrace, slots_alone
from benchmarks.peers import jvm
from benchmarks.peers.environment import PeerUnavailable
from benchmarks.peers.lineup import PEERS
from benchmarks.processes import Memory
from benchmarks.report import COLUMNS, Results, cents_per_million, markdown, rows, write
from benchmarks.trial import ContenderFailed, Measured
from benchmarks.workload import CARDS


def contender(name: str, *, writes_parquet: bool = True) -> Contender:
    return Contender(
        name=name,
        guarantee="none",
        command=lambda _: [],
        kind=lambda _: "loop",
        memory_of="loop",
        writes_parquet=writes_parquet,
    )


def unavailable() -> Contender:
    raise PeerUnavailable("no compiler here")


LINEUP = {
    "first": partial(contender, "first"),
    "second": partial(contender, "second"),
    "absent": unavailable,
}


def measured(rate: float, micros: float = 10.0) -> Measured:
    return Measured(
        rate=rate, first=1.5, cpu={"loop": micros}, broker=2.0, memory=Memory(1 << 20, 0)
    )


def results(**runs: dict[int, Measured]) -> Results:
    field = [contender(name, writes_parquet=name != "java") for name in runs]
    return Results(field, runs, {}, {}, 1_000, "a broker", "a command")


def test_who_cannot_be_had_is_left_out_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """The others take part, and the reader learns what is missing."""
    field = comparison._field(LINEUP, list(LINEUP))
    assert [one.name for one in field] == ["first", "second"]
    assert "absent is left out: no compiler here" in capsys.readouterr().out


def test_only_who_is_named_is_made() -> None:
    """A peer that is not asked for is not installed; the first always takes part."""
    assert [one.name for one in comparison._field(LINEUP, ["second"])] == ["first", "second"]


def test_nothing_is_compared_without_the_first() -> None:
    """What the others are compared with must be there."""
    with pytest.raises(PeerUnavailable, match="no compiler"):
        comparison._field({"absent": unavailable}, [])


def test_an_unknown_contender_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names those that there are."""
    made = Comparison("benchmarks.x", "x", {CARDS.name: LINEUP}, tmp_path, 3, 1_000)
    with pytest.raises(SystemExit):
        comparison._parsed(made, ["--contenders", "third"])
    assert "'third' is none of 'first', 'second', 'absent'" in capsys.readouterr().err


def test_a_failure_ends_no_other_run(capsys: pytest.CaptureFixture[str]) -> None:
    """A contender that failed has no figure, and its reason is kept and told."""

    def fail() -> Measured:
        raise ContenderFailed("second ended with exit code 1; its last lines:\nTraceback")

    failed: dict[str, str] = {}
    assert comparison._attempted(fail, contender("second"), failed) is None
    assert list(failed) == ["second"]
    assert "exit code 1" in capsys.readouterr().err


def test_ratios_are_of_the_same_repetition() -> None:
    """A run that failed is missing on both sides of the ratio."""
    found = rows(results(first={0: measured(100.0), 1: measured(10.0)}, second={1: measured(30.0)}))
    assert [row[COLUMNS.index("ratio")] for row in found] == ["1.00", "3.00"]


def test_who_never_ran_has_no_row_but_a_reason() -> None:
    """The page says why a contender is missing, in one line."""
    made = results(first={0: measured(100.0)}, second={})
    told = Results(
        made.contenders, made.runs, {}, {"second": "second did not end in time; its last lines:\nx"},
        made.records, made.broker, made.command,
    )  # fmt: skip
    page = markdown(told, "picture.png")
    assert "- second failed: second did not end in time; its last lines\n" in page
    assert "| second |" not in page


def test_a_page_is_written_though_all_failed(tmp_path: Path) -> None:
    """The reasons are then all that it has."""
    field = [contender("first")]
    told = Results(field, {"first": {}}, {}, {"first": "no"}, 1_000, "a broker", "a command")
    page = write(told, tmp_path, "")
    assert "- first failed: no\n" in page.read_text()


def test_the_table_says_who_writes_no_parquet() -> None:
    """A contender that does less of the job is not taken for one that does all."""
    found = rows(results(first={0: measured(1.0)}, java={0: measured(2.0)}))
    assert [row[1] for row in found] == ["none", "none, no Parquet"]


def test_cents_follow_the_cpu() -> None:
    """3,600 µs a record are an hour for a million: the price of one core-hour."""
    assert cents_per_million(3_600.0) == pytest.approx(4.0)


@pytest.mark.parametrize("lineup", [beside(CARDS.loop), *PEERS.values()])
def test_contenders_have_the_names_of_their_lineup(lineup: comparison.Lineup) -> None:
    """`--contenders` understands what the table says; peers are made only where they take part."""
    for name, make in lineup.items():
        if isinstance(make, partial) and make.func in {headrace, slots_alone}:
            assert make().name == name


def test_other_sources_are_compiled_anew(tmp_path: Path) -> None:
    """The fingerprint follows the text of a source and the name of a jar."""
    source, jar = tmp_path / "A.java", tmp_path / "kafka-1.jar"
    source.write_text("class A {}")
    jar.write_text("")
    first = jvm.fingerprint([source, jar])
    source.write_text("class A { }")
    assert first != jvm.fingerprint([source, jar])
    assert jvm.fingerprint([source, jar]) != jvm.fingerprint([source, jar.rename(tmp_path / "k")])


def test_the_crayfish_events_have_the_published_shape(tmp_path: Path) -> None:
    """784 numbers in about 8.4 kB, and the mean of ten scores for each distinct event."""
    (key, value, partition), *_ = CRAYFISH.events(1, 3)
    event = msgspec.json.decode(value)
    assert (key, partition, event["id"]) == (b"image-3", 3, 3)
    assert len(event["features"]) == FEATURES
    assert 8_000 < len(value) < 9_000
    scores = CRAYFISH.reference(CRAYFISH.write_model(tmp_path))
    assert scores.shape == (2_000,)
    assert np.isfinite(scores).all()

"""What `headrace verify` shows, and how it ends."""

import io

import pytest
from rich.console import Console

from pipeline.audit_job import Range
from pipeline.tables import of_verification
from pipeline.verification import ANOMALIES, EXIT_CODES, NOT_CHECKABLE, OK, Found, Verification


def result(name: str, anomalies: list[Found], reasons: list[str]) -> Verification:
    ranges = [Range(0, 5, 1200, 1190, not reasons)]
    return Verification(
        "fraud", 0.0, "exactly_once", name, 2, ranges, 1180, 10, 3, 4, anomalies, reasons
    )


LOST = Found("lost", "fraud.predictions", 7, ["fraud.events/0@9 has a row and no prediction"])


@pytest.mark.parametrize(
    ("name", "anomalies", "reasons"),
    [(OK, [], []), (ANOMALIES, [LOST], []), (NOT_CHECKABLE, [], ["retention removed the input"])],
)
def test_a_person_sees_the_range_and_every_finding(
    name: str, anomalies: list[Found], reasons: list[str]
) -> None:
    """Range, counts, generation, each anomaly with its meaning and examples, and the result."""
    text = io.StringIO()
    Console(file=text, width=120).print(of_verification(result(name, anomalies, reasons)))
    said = text.getvalue()
    assert "1,200" in said
    assert "1,180 predictions and 10 dead letters, 3 of them repeated; 4 Parquet files" in said
    assert "since offsets were set anew, with layout 2" in said
    for one in anomalies:
        assert f"{one.anomaly} in {one.where}: {one.count}" in said
        assert "was promised and is not there" in said
        assert one.examples[0] in said
    for reason in reasons:
        assert f"not checkable: {reason}" in said
    assert said.rstrip().endswith(name)


def test_each_result_has_an_exit_code_of_its_own() -> None:
    """Only what is proven ends with 0, and what is not known does not end as what is wrong."""
    assert EXIT_CODES == {OK: 0, ANOMALIES: 1, NOT_CHECKABLE: 6}

"""Questions to the cluster: asked again and again, and never waited for."""

from concurrent.futures import Future

import pytest

from pipeline.errors import Retriable
from pipeline.question import Question
from pipeline.testing import inline


def test_an_answer_is_given_once_and_asked_for_again_after_a_while() -> None:
    """From when it is due, as often as it was told."""
    answers = iter(range(10))
    question = Question(lambda: next(answers), 5.0, 10.0, inline)
    assert [question.answer(now) for now in (9.0, 10.0, 14.9, 15.0, 16.0)] == [
        None,
        0,
        None,
        1,
        None,
    ]


def test_while_it_is_out_it_is_not_asked_again() -> None:
    """Whoever is slow is not asked by ever more threads."""
    asked: list[Future[int]] = []

    def background(_: object) -> Future[int]:
        asked.append(Future())
        return asked[-1]

    question = Question(lambda: 1, 5.0, 0.0, background)  # type: ignore[arg-type]
    assert [question.answer(now) for now in (0.0, 5.0, 100.0)] == [None, None, None]
    asked[0].set_result(7)
    assert (question.answer(101.0), len(asked)) == (7, 1)
    assert (question.answer(102.0), len(asked)) == (None, 2)


def test_what_asking_raised_is_raised_and_it_is_asked_again() -> None:
    """A broker that does not answer once may do so the next time."""
    answers = iter([Retriable("no broker"), 3])

    def ask() -> int:
        answer = next(answers)
        if isinstance(answer, Retriable):
            raise answer
        return answer

    question = Question(ask, 1.0, 0.0, inline)
    with pytest.raises(Retriable, match="no broker"):
        question.answer(0.0)
    assert question.answer(1.0) == 3

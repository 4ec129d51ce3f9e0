"""The fault suite's own tools: a step is reached by whoever comes first, once, and only if armed."""

import signal
import subprocess
import sys

import pytest
from harness import Marks, environment
from steps import STEPS

BEFORE, AFTER = (step for step in STEPS if step.target == "os:replace")
RENAME = "import os; open('a', 'w').close(); os.replace('a', 'b.parquet')"


def rename(marks, folder):
    """Have a process of its own rename a file to b.parquet; give its exit code."""
    return subprocess.run(
        [sys.executable, "-c", RENAME], cwd=folder, env=environment(marks), check=False
    ).returncode


@pytest.mark.parametrize(("step", "renamed"), [(BEFORE, False), (AFTER, True)])
def test_an_armed_step_ends_the_first_process_that_comes_to_it(tmp_path, step, renamed):
    """It dies there, having done what stands before the step; the next process passes."""
    marks = Marks(tmp_path / "marks")
    marks.arm(step)
    assert rename(marks, tmp_path) == -signal.SIGKILL
    assert (tmp_path / "b.parquet").exists() == renamed
    assert marks.fired(step)
    assert rename(marks, tmp_path) == 0


def test_an_order_that_was_taken_back_ends_nobody(tmp_path):
    """Nor does one that is not armed at all."""
    marks = Marks(tmp_path / "marks")
    marks.arm(BEFORE)
    marks.disarm(BEFORE)
    assert rename(marks, tmp_path) == 0
    assert marks.fired(BEFORE) is None


def test_a_sitecustomize_that_was_there_is_still_loaded(tmp_path):
    """Ours hides it, and so loads it."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.hidden = True")
    kept = environment(Marks(tmp_path / "marks"))
    kept["PYTHONPATH"] += f":{tmp_path}"
    command = [sys.executable, "-c", "import sys; assert sys.hidden"]
    assert subprocess.run(command, env=kept, check=False).returncode == 0


def test_every_step_names_a_callable_that_there_is(tmp_path):
    """A module whose function was renamed cannot be imported where faults are at work."""
    modules = sorted({step.target.partition(":")[0] for step in STEPS} - {"proxy"})
    code = f"import {', '.join(modules)}"
    kept = environment(Marks(tmp_path / "marks"))
    assert subprocess.run([sys.executable, "-c", code], env=kept, check=False).returncode == 0

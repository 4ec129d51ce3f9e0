"""Ends or stops its own process at a named step; at work where `HEADRACE_FAULTS` names a folder.

A file `armed/{slug}` orders one fault. The process that comes to the step takes the file away by
renaming it, which only one can do, leaves a mark that names its role and id, and signals itself.
"""

import functools
import importlib.abc
import json
import os
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path

from steps import STEPS, Step

# What was produced is then on its way or there: "in the middle" has something before it.
SENDING_SECONDS = 0.05


def reached(folder: Path, step: Step) -> None:
    """Carry out the fault that is armed for this step, if there is one."""
    armed = folder / "armed" / step.slug
    # A look first: it costs a microsecond, and most calls find nothing.
    if not armed.exists():
        return
    taken = folder / "taken" / f"{step.slug}.{os.getpid()}"
    try:
        armed.rename(taken)
    except FileNotFoundError:
        return
    order = json.loads(taken.read_text())
    if step.side == "within":
        time.sleep(SENDING_SECONDS)
    mark = taken.with_suffix(".mark")
    mark.write_text(json.dumps({"pid": os.getpid()}))
    mark.rename(folder / "fired" / step.slug)
    if order["signal"] is None:
        time.sleep(order["seconds"])
    else:
        os.kill(os.getpid(), order["signal"])


def wrapped(function, step: Step, folder: Path):
    """The callable with the step before it, after it, or between what it is given."""

    @functools.wraps(function)
    def call(*arguments, **named):
        if step.side == "within":
            target, groups = arguments
            return function(target, _interrupted(groups, step, folder), **named)
        if step.side == "before" and step.holds(arguments, None):
            reached(folder, step)
        result = function(*arguments, **named)
        if step.side == "after" and step.holds(arguments, result):
            reached(folder, step)
        return result

    return call


def _interrupted(groups, step: Step, folder: Path):
    for number, group in enumerate(groups):
        if number:
            reached(folder, step)
        yield group


def apply(module, step: Step, folder: Path) -> None:
    """Put the step into the module, in each class that has it."""
    owners, _, function = step.target.partition(":")[2].rpartition(".")
    for holder in [getattr(module, owner) for owner in owners.split("|") if owner] or [module]:
        setattr(holder, function, wrapped(getattr(holder, function), step, folder))


class _Loader(importlib.abc.Loader):
    """Loads a module as its own loader does, then puts its steps in."""

    def __init__(self, loader: importlib.abc.Loader, folder: Path) -> None:
        self._loader = loader
        self._folder = folder

    def create_module(self, spec: ModuleSpec):
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:
        self._loader.exec_module(module)
        for step in STEPS:
            if step.target.partition(":")[0] == module.__name__:
                apply(module, step, self._folder)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._modules = {step.target.partition(":")[0] for step in STEPS}

    def find_spec(self, name, path, target=None):
        if name not in self._modules:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                spec.loader = _Loader(spec.loader, self._folder)
                return spec
        return None


def install(folder: Path) -> None:
    """Watch this process's imports from now on; what is there already gets its steps at once."""
    sys.meta_path.insert(0, _Finder(folder))
    for step in STEPS:
        module = sys.modules.get(step.target.partition(":")[0])
        if module is not None:
            apply(module, step, folder)

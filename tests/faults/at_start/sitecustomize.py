"""Loaded at the start of every interpreter that has this folder on its PYTHONPATH."""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

_here = Path(__file__).resolve().parent
if "HEADRACE_FAULTS" in os.environ:
    sys.path.insert(0, str(_here.parent))
    try:
        import injection
    finally:
        sys.path.pop(0)
    injection.install(Path(os.environ["HEADRACE_FAULTS"]))

# The one that this hides.
_others = [entry for entry in sys.path if Path(entry or ".").resolve() != _here]
_spec = PathFinder.find_spec("sitecustomize", _others)
if _spec is not None and _spec.loader is not None:
    _spec.loader.exec_module(importlib.util.module_from_spec(_spec))

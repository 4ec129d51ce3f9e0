"""Who imports whom: values, pure, roles, wire, main, commands, in this direction only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# From the bottom up: a module imports its own layer and those above it in this table.
LAYERS = {
    "values": "batch control errors ragged vocabulary recipe model schema config ports",
    "pure": "ledger batcher journal archived commit dead_letters progress layout handover reset "
    "topology settings document kafka_keys shapes explain scaffold model_reader model_ids "
    "model_folder signature_ids signature ids decode json_types json_repair json_structs json_flat "
    "_scan forms best ranking rules score rows encode _encode capacity "
    "anomaly marks contents books answers audit audit_file audit_files audit_inputs audit_chunks "
    "audit_journal audit_rows audit_job verification demand outlook scale placement",
    "roles": "question starts dispatch committer feeder fleet slot slots archiver keeper scaler status run",
    "wire": "job stream build wire",
    "main": "signals main",
    "commands": "topics records check replay offsets submit produce view verify tables commands",
    "cli": "cli",
}
# What an edge or a double may know beside values: rules and forms without a role.
RULES = "layout handover reset topology kafka_keys status journal archived"
EDGES_KNOW = {*LAYERS["values"].split(), *RULES.split()}
IMPORT_EDGES = {
    *LAYERS["wire"].split(),
    "main",
    *LAYERS["commands"].split(),
    "cli",
}
HEIGHT = {name: i for i, names in enumerate(LAYERS.values()) for name in names.split()}
MODULES = sorted((ROOT / "pipeline").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full names of the modules of ours that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module in {"pipeline", "pipeline.edges"} else {node.module}
    return {name for name in found if name.split(".")[0] in {"pipeline", "jobs"}}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    """Each module imports its own layer and those below; `pipeline` never imports `jobs`."""
    _, *inner = path.relative_to(ROOT).with_suffix("").parts
    names = imported(path)
    assert not any(name.startswith("jobs") for name in names), "pipeline never imports jobs"
    own = inner[0]
    for name in names:
        other, *rest = name.split(".")[1:] or ["__init__"]
        if own in {"edges", "testing"}:
            inside = other == own and (own == "testing" or rest[:1] == [*inner[1:2]])
            assert inside or other in EDGES_KNOW, f"an edge imports values only, not {name}"
        elif other == "edges":
            assert own in IMPORT_EDGES, f"only wire, main and commands import {name}"
        elif own != "__init__":
            for module in (own, other):
                assert module in HEIGHT, f"add {module} to LAYERS in {__file__}"
            assert HEIGHT[other] <= HEIGHT[own], f"{own} is below {other}"


def test_the_layers_name_every_module_once_and_none_that_is_gone() -> None:
    """A module that moved or went away leaves no name behind in the table."""
    named = [name for names in LAYERS.values() for name in names.split()]
    here = ROOT / "pipeline"
    present = {path.stem for path in [*here.glob("*.py"), *here.glob("*.cpp")]} - {"__init__"}
    assert sorted(named) == sorted(present)

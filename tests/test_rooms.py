"""Imports point down only, and each kind of code stays in its room (docs/structure.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = {  # a module may import what stands at a lower level, or within its own room
    "cli": 7,
    "commands": 6,
    "fit": 7,
    "callbacks": 6,
    "saving": 5,
    "launch": 4,
    "guard": 5,
    "leaving": 5,
    "logs": 4,
    "replay": 6,
    "settings": 4,
    "probes": 5,
    "module": 4,
    "runs": 4,
    "doctor": 4,
    "hub": 6,
    "export": 5,
    "importing": 4,
    "card": 4,
    "checkpoint": 3,
    "published": 3,
    "architecture": 2,
    "weights": 2,
    "interop": 2,
    "health": 3,
    "datasets": 2,
    "plan": 2,
    "envs": 2,
    "model": 1,
    "loss": 1,
    "schedule": 1,
    "precision": 1,
    "augment": 1,
    "clip": 0,
    "distributed": 0,
    "errors": 0,
    "allocator": 0,
    "paths": 1,
    "job": 1,
    "arguments": 1,
    "environment": 2,
    "progress": 0,
    "_compat": 0,
    "__init__": 1,
    "__main__": 8,
}
LIGHTNING = {"module", "callbacks", "saving", "guard", "leaving", "logs", "replay", "launch", "fit", "cli"}
FORBIDDEN = {
    ("datasets", "model"),
    ("datasets", "loss"),
    ("datasets", "envs"),
    ("plan", "model"),
    ("model", "loss"),
    ("loss", "model"),
}
SOLVERS = ("cem", "icem", "mppi", "gradient", "shooting")
MAY_IMPORT_PROBES = {"cli", "commands", "fit", "callbacks", "probes", "__main__"}


def modules() -> list[tuple[str, Path]]:
    found = [(p.parent.name if p.parent.name != "lewm" else p.stem, p) for p in sorted((ROOT / "lewm").glob("*.py"))]
    found += [(d, p) for d in ("model", "loss", "envs", "plan") for p in sorted((ROOT / "lewm" / d).glob("*.py"))]
    return found + [(d, p) for d in ("datasets", "probes") for p in sorted((ROOT / d).glob("*.py"))]


def imports(path: Path) -> set[str]:
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    return names


def room(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "lewm" and len(parts) > 1 and parts[1] in LEVELS else None


@pytest.mark.parametrize(("own", "path"), modules(), ids=lambda v: str(v) if isinstance(v, str) else v.stem)
def test_imports_point_down(own, path):
    for name in imports(path):
        other = room(name)
        if other is None or other == own:
            continue
        assert LEVELS[other] < LEVELS[own] or {own, other} <= {"cli", "fit"}, f"{path.name} imports {name}"
        assert (own, other) not in FORBIDDEN, f"{path.name} imports {name}"
        if other == "probes":
            assert own in MAY_IMPORT_PROBES, f"{path.name} imports {name}"


@pytest.mark.parametrize(("own", "path"), modules(), ids=lambda v: str(v) if isinstance(v, str) else v.stem)
def test_lightning_is_known_only_where_a_trainer_is(own, path):
    if any(name.split(".")[0] in ("lightning", "pytorch_lightning") for name in imports(path)):
        assert own in LIGHTNING or path.name in ("datamodule.py", "count_bad_records.py")


def test_the_two_folders_stay_flat_and_are_linked_into_the_package():
    for name in ("datasets", "probes"):
        assert (ROOT / "lewm" / name).resolve() == ROOT / name
        assert not list((ROOT / name).rglob("__init__.py"))
        assert not [p for p in (ROOT / name).iterdir() if p.is_dir() and p.name != "__pycache__"]


def test_every_module_is_in_a_room():
    assert {own for own, _ in modules()} <= LEVELS.keys()


def test_a_planner_knows_a_model_by_its_protocol_alone():
    for name in ("protocol", "space", "noise", "cost", "problem", "sampling", "settings", "mpc", "mixed", *SOLVERS):
        known = {room(i) for i in imports(ROOT / "lewm" / "plan" / f"{name}.py")} - {None, "plan"}
        assert known <= {"clip", "errors", "distributed"}, f"{name}.py imports {known}"

"""What the source itself may call: nothing that loads a pickle, evaluates text or starts a shell."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle", "wids"}
NAMES = {
    *("eval", "exec", "__import__", "importlib.import_module", "os.system", "os.popen", "subprocess.getoutput"),
    *("torch.jit.load", "torch.hub.load", "torch.package", "torch.serialization.add_safe_globals", "torch.export.load"),
    *("pandas.read_pickle", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
    *("numpy.lib.format.read_array", "subprocess.getstatusoutput", "builtins.eval", "builtins.exec"),
}
LOADERS = {"torch.load", "numpy.load"}
GIVEN = {"weights_only": True, "allow_pickle": False, "shell": False}  # what each may be, as a plain constant
FEW = {"numpy.load": 2, "subprocess.run": 1, "subprocess.Popen": 1}  # arguments by place, before a dangerous one
ALLOWED = {
    ("lewm/__init__.py", "importlib.import_module"): "lazy attributes: modules of this package, from a table",
    ("lewm/plan/__init__.py", "importlib.import_module"): "lazy attributes: modules of this package, from a table",
    ("lewm/envs/__init__.py", "importlib.import_module"): "worlds and policies: modules of this package, from a table",
    ("datasets/foreign.py", "importlib.import_module"): "readers of layouts: modules of this package, from a table",
    ("lewm/envs/packages.py", "importlib.import_module"): "packages that worlds are built on, by names in their source",
}


def origins(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module or ''}.{alias.name}" for alias in node.names}
    return found


def dotted(node: ast.AST, known: dict[str, str]) -> str:
    """`torch.load` of `t.load` after `import torch as t`; empty for what is no name."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (base := dotted(node.value, known)):
        return f"{base}.{node.attr}"
    return ""


def is_constant(node: ast.AST, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def faults_of_call(call: ast.Call, name: str) -> list[str]:
    given = {k.arg: k.value for k in call.keywords}
    found = [f"{name}({k}=...)" for k, v in GIVEN.items() if k in given and not is_constant(given[k], v)]
    if name in LOADERS | FEW.keys() and None in given:
        found.append(f"{name}(**...)")
    if name == "torch.load" and "weights_only" not in given:
        found.append("torch.load without weights_only")
    if len(call.args) > FEW.get(name, 99) or any(isinstance(a, ast.Starred) for a in call.args if name in FEW):
        found.append(f"{name} with too many arguments by place")
    if isinstance(call.func, ast.Attribute) and call.func.attr in ("extract", "extractall"):
        found.append(f"{name}: an archive is unpacked")
    if name == "getattr" and getattr(call.args[1], "value", None) in ("load", "loads", "read_pickle"):
        found.append("getattr of a loader")
    return found


def faults(source: str) -> list[str]:
    """Everything in a module that could load a pickle, evaluate text or start a shell."""
    tree = ast.parse(source)
    known, found = origins(tree), []
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            origin = getattr(node, "module", None) or ""
            for alias in node.names:
                name = f"{origin}.{alias.name}".lstrip(".")
                if name.partition(".")[0] in MODULES or name in NAMES | LOADERS:
                    found.append(name)
        elif isinstance(node, ast.Call):
            found += faults_of_call(node, dotted(node.func, known) or "a call")
        if isinstance(node, ast.Name | ast.Attribute):
            name = dotted(node, known)
            if name in NAMES or (name in LOADERS and id(node) not in called):  # under another name, or handed on
                found.append(name)
    return sorted(set(found))


def test_the_source_never_loads_a_pickle_never_evaluates_text_and_starts_no_shell():
    files = [p for d in ("lewm", "datasets", "probes", "benchmarks") for p in sorted((ROOT / d).rglob("*.py"))]
    assert len(files) > 100
    used = set()
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        found = faults(path.read_text(encoding="utf-8"))
        used |= {(name, fault) for fault in found} & ALLOWED.keys()
        assert [fault for fault in found if (name, fault) not in ALLOWED] == [], name
    assert used == ALLOWED.keys()


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)",
        "import torch\ntorch.load(f, weights_only=safe)",
        "import torch\ntorch.load(f, weights_only=not False)",
        "import torch\ntorch.load(f, **how)",
        "import torch\nload = torch.load\nload(f)",
        "import torch\nmap(torch.load, files)",
        "import torch as t\nt.load(f)",
        "from torch import load\nload(f, weights_only=True)",
        "from torch import load as read",
        "import torch\ntorch.jit.load(f)",
        "from torch import jit\njit.load(f)",
        "from torch.jit import load",
        "import torch\ngetattr(torch, 'load')(f)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import numpy as np\nnp.load(f, allow_pickle=trusted)",
        "import numpy as np\nnp.load(f, None, True)",
        "import numpy as np\nnp.load(f, **how)",
        "import numpy\nread = numpy.load",
        "from numpy import load",
        "from numpy.lib import format\nformat.read_array(f)",
        "import joblib",
        "from joblib import load",
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "def f():\n    import dill",
        "import cloudpickle",
        "import shelve",
        "from pandas import read_pickle",
        "import pandas as pd\npd.read_pickle(f)",
        "import importlib\nimportlib.import_module('pickle')",
        "from importlib import import_module\nimport_module(name)",
        "__import__('pickle')",
        "import subprocess\nsubprocess.run(x, shell=True)",
        "import subprocess\nsubprocess.run(x, shell=1)",
        "import subprocess\nsubprocess.run(x, shell=wanted)",
        "from subprocess import Popen as P\nP(x, 0, None, None, None, None, None, True, True)",
        "from os import system",
        "import os\nos.popen(x)",
        "import yaml\nyaml.load(x, yaml.Loader)",
        "eval(x)",
        "run = exec",
        "tar.extractall('.')",
    ],
)
def test_each_way_to_run_what_is_read_is_found(source):
    assert faults(source) != []


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(f, map_location='cpu', weights_only=True)",
        "import numpy as np\nnp.load(f)\nnp.load(f, allow_pickle=False)",
        "import subprocess\nsubprocess.run(['git'], capture_output=True)",
        "import json, yaml\njson.load(f)\nyaml.safe_load(f)",
        "model.eval()\nsource.load(f)",
    ],
)
def test_what_runs_nothing_is_left_alone(source):
    assert faults(source) == []

"""The rooms and floors: who may import whom."""

from __future__ import annotations

import ast
import configparser
from pathlib import Path

import pytest

import fercache

PACKAGE = Path(fercache.__file__).parent
ROOMS = [
    ("ground", 0, {"documents", "errors", "files", "limits", "tasks"}),
    ("settings", 1, {"config", "configs", "rundir", "runtime"}),
    ("data", 2, {"data"}),
    ("cache", 2, {"cache"}),
    ("models", 2, {"models"}),
    ("synth", 3, {"synth"}),
    ("training", 3, {"training"}),
    ("scoring", 3, {"scoring"}),
    ("results", 4, {"results"}),
    ("stages", 5, {"stages"}),
    ("tools", 5, {"tools"}),
    ("report", 5, {"report"}),
    ("pipeline", 6, {"pipeline"}),
    ("cluster", 7, {"cluster"}),
    ("cli", 8, {"cli", "__main__"}),
    ("door", 9, {"__init__"}),
]
ROOM_OF = {name: room for room, _, names in ROOMS for name in names}
FLOOR = {room: floor for room, floor, _ in ROOMS}
MUST_NOT_KNOW = {
    "ground": {"torch", "h5py", "sklearn", "scipy"},
    "models": {"fercache.config"},
    "synth": {"torch", "fercache.cache", "fercache.models"},
    "scoring": {"torch", "fercache.files", "fercache.data", "fercache.cache", "pathlib"},
    "results": {"torch", "fercache.synth"},
    "settings": {"h5py"},
    "stages": {"fercache.synth"},
    "report": {"torch", "fercache.synth"},
    "cli": {"torch", "h5py"},
    "pipeline": {"torch", "h5py", "fercache.synth"},
    "cluster": {"torch", "h5py", "fercache.stages"},
}


def room(module: str) -> str:
    parts = module.split(".")
    return ROOM_OF[parts[1] if len(parts) > 1 else "__init__"]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever the import stands."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from fercache import runtime` imports a module, `from fercache.tasks import Task` a name.
            imported |= {name if node.module == "fercache" else node.module for name in names}
    return imported


def violations(module: str, imported: set[str]) -> list[str]:
    home = room(module)
    wrong = []
    for name in sorted(imported):
        if name.split(".")[0] == "fercache" and name != "fercache.__version__":
            other = room(name)
            if other != home and FLOOR[other] >= FLOOR[home]:
                wrong.append(f"{module} (floor {FLOOR[home]}) imports {name} (floor {FLOOR[other]})")
            if home == other == "stages" and name.split(".")[2:3] != module.split(".")[2:3]:
                wrong.append(f"{module} imports the stage {name}")
        if any(name == banned or name.startswith(f"{banned}.") for banned in MUST_NOT_KNOW.get(home, ())):
            wrong.append(f"{module} must not know {name}")
        if name.split(".")[0] == "h5py" and home != "cache":
            wrong.append(f"{module} imports h5py, which only the cache may")
        if name == "click" and home != "cli":
            wrong.append(f"{module} imports click, which only the command line may")
    return wrong


def test_no_import_runs_upward():
    wrong = []
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 20
    for path in files:
        module = ".".join(["fercache", *path.relative_to(PACKAGE).with_suffix("").parts])
        wrong += violations(module.removesuffix(".__init__") if path.parent != PACKAGE else module, imports(path))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("fercache.data.manifest", "fercache.stages.extract"),
        ("fercache.models.heads", "fercache.cache.reader"),
        ("fercache.models.heads", "fercache.config"),
        ("fercache.scoring.metrics", "torch.nn"),
        ("fercache.stages.predict", "fercache.stages.extract"),
        ("fercache.report.page", "fercache.stages.evaluate"),
        ("fercache.stages.evaluate", "fercache.report.charts"),
        ("fercache.stages.predict", "h5py"),
        ("fercache.tasks", "fercache.runtime"),
    ],
)
def test_an_upward_import_is_found(module, imported):
    assert violations(module, {imported})


def names_a_kind_of_task(text: str) -> bool:
    kinds, nodes = {"Classification", "Multiclass", "Multilabel"}, list(ast.walk(ast.parse(text)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return bool(kinds & names)


def test_nothing_outside_tasks_tests_the_kind_of_a_task():
    files = {path for path in PACKAGE.rglob("*.py") if path.parent.name != "tasks"}
    assert not {path for path in files if names_a_kind_of_task(path.read_text(encoding="utf-8"))}
    assert names_a_kind_of_task("isinstance(task, Multiclass)") and names_a_kind_of_task("tasks.Multilabel")


def test_every_package_is_installed():
    """An editable installation has them all; a wheel only those that setup.cfg lists."""
    config = configparser.ConfigParser()
    config.read(PACKAGE.parent / "setup.cfg")
    listed = set(config["options"]["packages"].split()) - {"fercache.configs"}
    folders = {path.parent.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("__init__.py")}
    assert listed == {".".join(folder.parts) for folder in folders}


def test_no_test_imports_a_test_or_runs_a_benchmark():
    """What several tests need is in tests/support."""
    tests = Path(__file__).parent
    wrong = []
    for path in tests.rglob("*.py"):
        names = {name.split(".")[0] for name in imports(path)}
        wrong += [f"{path}: {name}" for name in names if name.startswith("test_") or name in ("conftest", "benchmarks")]
        if path != Path(__file__) and "benchmarks/" in path.read_text(encoding="utf-8"):
            wrong.append(f"{path}: benchmarks/")
    assert not wrong, "\n".join(wrong)


def test_the_environment_is_read_in_one_place():
    readers = {path for path in PACKAGE.rglob("*.py") if reads_environment(path.read_text(encoding="utf-8"))}
    assert {path.parent.name for path in readers} == {"runtime"}


def reads_environment(text: str) -> bool:
    names = {"environ", "environb", "getenv", "getenvb"}
    nodes = list(ast.walk(ast.parse(text)))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    return bool(names & (attributes | imported))


@pytest.mark.parametrize(
    "text",
    ["import os\nos.environ['A']", "import os as o\no.getenv('A')", "from os import environ", "from os import getenv"],
)
def test_every_way_to_the_environment_is_found(text):
    assert reads_environment(text) and not reads_environment("import os\nos.path")

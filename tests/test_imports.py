"""The code reads downwards: imports point one way, in no circle, and nobody needs a neighbour's private names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "esdnet_cli"
ORDER = (  # each imports only what stands after it
    "__main__", "cli", "commands", "early", "show", "report", "bench", "training", "video", "shards", "pipeline",
    "checkpoint", "options", "settings", "energy", "model", "metrics", "files", "errors", "",
)  # fmt: skip


def imports() -> Iterator[tuple[str, str, list[str]]]:
    """Who imports which module of ours, within functions, too, and which names of it; without `esdnet_cli.`."""
    modules = {path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    for path, name in modules.items():
        importer = name.removesuffix("__init__").removesuffix(".")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "esdnet_cli":
                source = (node.module or "").removeprefix("esdnet_cli").removeprefix(".")
                for alias in node.names:
                    inner = f"{source}.{alias.name}".removeprefix(".")
                    yield (importer, inner, []) if inner in modules.values() else (importer, source, [alias.name])


def test_packages_import_downwards() -> None:
    for importer, source, _ in imports():
        above, below = importer.split(".")[0], source.split(".")[0]
        if importer and above != below:
            assert ORDER.index(above) < ORDER.index(below), f"{importer} imports {source}"


def test_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for importer, source, _ in imports():
        graph.setdefault(importer, set()).add(source)
    assert len(graph) > 50
    TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_no_private_name_of_a_neighbour() -> None:
    for importer, source, names in imports():
        assert not any(name.startswith("_") and name != "__version__" for name in names), f"{importer}: {source}"


def test_only_commands_know_click() -> None:
    know = {path for path in PACKAGE.rglob("*.py") if "import click" in path.read_text(encoding="utf-8")}
    assert know == {
        *(PACKAGE / "commands").glob("[!_]*.py"),
        PACKAGE / "cli.py",
        PACKAGE / "early.py",
        PACKAGE / "options.py",
    }

"""What keeps the house easy to walk through."""

import ast
import inspect
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from graft import run
from graft.cli.main import verbs

SRC = Path(__file__).parents[1] / "src"
MODULES = {
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SRC.rglob("graft/**/*.py")
}


def imports(node: ast.AST) -> Iterator[str]:
    """Graft's modules that a syntax tree imports, also inside functions; what is for types alone is left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names if alias.name in MODULES)
        elif isinstance(child, ast.ImportFrom) and child.module in MODULES:
            for alias in child.names:
                inner = f"{child.module}.{alias.name}"
                yield inner if inner in MODULES else child.module
        yield from imports(child)


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: set(imports(ast.parse(path.read_text()))) - {name} for name, path in MODULES.items()}
    assert sum(map(len, graph.values())) > 400
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_run_reads_on_one_screen():
    assert len(inspect.getsource(run.train).splitlines()) < 80


def test_every_verb_says_what_it_does():
    assert all(verbs().values())

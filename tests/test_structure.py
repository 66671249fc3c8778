"""How the code hangs together: no import circles, a story of a run in one screen, verbs that say what they do."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import graft
from graft.cli.main import verbs

PACKAGE = Path(graft.__file__).parent


def modules():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def nodes(tree):
    """Every node but what only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            yield node
            yield from nodes(node)


def imports(path, known):
    """Graft's modules that a file imports, inside functions too."""
    for node in nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in names if {name, node.module} & known.keys())


def test_no_module_imports_itself_through_others():
    known = modules()
    graph = {name: set(imports(path, known)) for name, path in known.items()}
    assert len(graph) > 100
    assert "graft.experiment" in graph["graft.run"]
    TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_the_story_of_a_run_fits_on_a_screen():
    functions = {node.name: node for node in ast.parse((PACKAGE / "run.py").read_text()).body if hasattr(node, "name")}
    assert functions["train"].end_lineno - functions["train"].lineno < 80


def test_every_verb_says_what_it_does():
    assert {"train", "tune", "soup", "show", "clean"} <= verbs().keys()
    assert all(verbs().values())

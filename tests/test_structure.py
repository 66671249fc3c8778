"""How the code hangs together: no import circles, a story of a run in one screen, verbs that say what they do."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import graft
from graft.backbones import recurrent, speech, text
from graft.cli.main import verbs
from graft.config.facts import arguments
from graft.data.sources import sklearn_table
from graft.heads import mlp
from graft.inputs.audio import augment
from graft.inputs.image import transform
from graft.tasks import regression
from graft.terms.regularization import co_tuning

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


@pytest.mark.parametrize(
    ("constructor", "key", "table"),
    [
        ("backbones.recurrent.RecurrentBackbone", "name", recurrent.CELLS),
        ("backbones.huggingface.HuggingFaceBackbone", "pooling", text.POOLINGS),
        ("backbones.speech.mel_backbone", "library", speech.LIBRARIES),
        ("heads.mlp.MLPHead", "activation", mlp.ACTIVATIONS),
        ("tasks.regression.Regression", "loss", regression.LOSSES),
        ("terms.regularization.co_tuning.CoTuning", "relationship", co_tuning.RELATIONSHIPS),
        ("data.sources.sklearn_table.SklearnTable", "rows", (*sklearn_table.ROWS, *sklearn_table.SHIFTED)),
    ],
)
def test_an_annotation_allows_what_the_code_has_a_part_for(constructor, key, table):
    """mypy wants the words of a Literal written out, so that they stand there and in the table."""
    assert set(arguments(f"graft.{constructor}").known[key].rule.choices) == set(table)


def test_the_shifts_of_both_modalities_are_allowed():
    allowed = arguments("graft.data.module.TransferDataModule").known["test_shifts"].rule.kinds[0].items.choices
    assert set(allowed) == {*transform.SHIFTS, *augment.SHIFTS}

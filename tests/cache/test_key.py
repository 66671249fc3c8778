import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from graft.cache.key import cache_key, code_used, imported, imports_alone, source_of, targets, versions

SRC = Path(__file__).parents[2] / "src"


def test_the_key_follows_every_value_and_no_order():
    first = cache_key({"a": 1, "b": {"c": [2, 3]}})
    assert cache_key({"b": {"c": [2, 3]}, "a": 1}) == first
    assert cache_key({"a": 1, "b": {"c": [3, 2]}}) != first


def test_versions_name_the_packages():
    assert set(versions(("torch", "pillow"))) == {"torch", "pillow"}
    assert versions(("no-such-package",)) == {"no-such-package": None}


def test_targets_are_found_at_any_depth():
    settings = {"_target_": "a.B", "front": {"_target_": "c.d", "sizes": [1]}, "list": [{"_target_": "e.F"}], "n": None}
    assert list(targets(settings)) == ["a.B", "c.d", "e.F"]


FILES = {
    "mine/__init__.py": "",
    "mine/net.py": "import json\nfrom mine import layers\nfrom .deep.block import Block\n\nclass Net:\n    pass\n",
    "mine/layers.py": "from __future__ import annotations\n\ndef build():\n    import mine.lazy\n",
    "mine/lazy.py": "",
    "mine/deep/__init__.py": "",
    "mine/deep/block.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mine.types_only\n"
        "class Block:\n    def build(self):\n        import timm\n"
    ),
    "mine/types_only.py": "",
    "mine/other.py": "",
}
USED = ("mine/net.py", "mine/layers.py", "mine/lazy.py", "mine/deep/block.py")


@pytest.fixture
def code(tmp_path):
    """What a new process says is used by a class of a user's package."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    script = "from graft.cache.key import code_used; import mine.net; print(code_used(mine.net.Net))"

    def ask() -> str:
        environment = os.environ | {"PYTHONPATH": f"{SRC}{os.pathsep}{tmp_path}", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True).stdout

    return ask


def test_a_users_own_code_counts_as_far_as_it_is_used_and_no_further(code, tmp_path):
    before = code()
    assert b"timm" in before
    assert b"torchvision" not in before
    changed = {}
    for name in FILES:
        original = (tmp_path / name).read_text()
        (tmp_path / name).write_text(f"{original}\nCHANGED = 1\n")
        changed[name] = code() != before
        (tmp_path / name).write_text(original)
    (tmp_path / "mine" / "new.py").write_text("import timm")
    assert code() == before
    assert {name for name, other in changed.items() if other} == set(USED)


def followed(*parts: str) -> set[str]:
    """Modules of Graft that some parts' code is."""
    found, todo = set(), set(parts)
    while todo:
        module = todo.pop()
        if module.startswith("graft") and module not in found:
            found.add(module)
            todo |= source_of(module)[1]
    return found


@pytest.mark.parametrize(
    ("content", "alone"),  # whether the quick way is taken
    [
        ("import a\nfrom b import (\n    c,  # one\n    d,\n)\nif x:\n    import e\n", True),
        ("if TYPE_CHECKING:\n    import a\n\n    import b\nimport c\n", True),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b\n", True),
        ("if not TYPE_CHECKING:\n    import a\n", True),
        ("if typing.TYPE_CHECKING:\n    import_a()\n", True),
        ("def f():\n    if TYPE_CHECKING:\n        import a\n    import b\n", True),
        ("import a; import b\n", False),
        ("if x: import a\n", False),
        ("x = 1;from a import b\n", False),
        ("import a, \\\n    b\nimport c\n", False),
        ("from a import (  # (b)\n    c,\n    d,\n)\n", False),
        ('"""Takes words\nfrom a text.\n"""\nimport c\n', False),
        ("def f():\r    import a\r", False),
        ("\ufeffimport a\n", False),
        ("from .a import b\nfrom.c import d\n", True),
    ],
)
def test_imports_are_found_without_parsing_all_of_a_file_or_by_parsing_it(content, alone):
    found = imports_alone(content.encode())
    assert (found is not None) == alone
    if found is not None:
        assert set(imported(found, "p.q")) == set(imported(ast.parse(content), "p.q"))


def test_imports_alone_are_all_that_grafts_own_files_have():
    shortened = 0
    for file in Path(SRC).rglob("*.py"):
        content = file.read_bytes()
        if (found := imports_alone(content)) is not None:
            shortened += 1
            expected = {ast.dump(node) for node in statements(ast.parse(content))}
            assert {ast.dump(node) for node in statements(found)} == expected, file
    assert shortened > 500


def statements(tree):
    """Import statements outside of a block for types."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from statements(ast.Module(node.orelse, []))
        elif isinstance(node, ast.stmt | ast.ExceptHandler):
            yield from statements(node)


def test_unrelated_parts_of_graft_are_not_in_a_key():
    used = followed("graft.cache.features", "graft.backbones.lenet", "graft.data.sources.digits", "graft.data.module")
    assert {"graft.backbones.base", "graft.backbones.split_backbone", "graft.cache.rows", "graft.data.sampling"} <= used
    for other in (
        "backbones.huggingface",
        "backbones.timm",
        "data.sources.table_file",
        "data.sources.text_file",
        "terms.base",
        "report",
    ):
        assert f"graft.{other}" not in used


@pytest.mark.parametrize(
    ("parts", "libraries"),
    [
        (
            ("graft.inputs.image.decoded", "graft.data.readers.images.ImageFiles"),
            {"pillow", "torch", "torchvision"},
        ),
        (("graft.cache.features", "graft.backbones.timm.TimmBackbone"), {"torch", "timm"}),
        (("graft.inputs.text", "graft.backbones.huggingface.HuggingFaceTokenizer"), {"transformers"}),
        (("graft.inputs.audio.transform", "graft.data.readers.recordings.SoundFiles"), {"soundfile", "scipy"}),
        (("graft.pretrain", "graft.backbones.lenet.lenet"), {"torch", "torchmetrics", "pytorch-lightning"}),
        (("torch.nn.modules.conv.Conv2d",), {"torch"}),
    ],
)
def test_libraries_count_where_they_are_used(parts, libraries):
    found = set(code_used(*parts)["versions"])
    assert libraries <= found
    for library in {"timm", "transformers", "peft", "soundfile", "scikit-learn"} - libraries:
        assert library not in found


def test_what_has_no_file_is_never_shared(monkeypatch):
    scope = {"__name__": "notebook_cell"}
    exec("class Net: pass", scope)
    mine = code_used(scope["Net"])
    assert mine == code_used(scope["Net"])
    source_of.cache_clear()
    assert mine != code_used(scope["Net"])

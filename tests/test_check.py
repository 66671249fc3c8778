"""`graft check` passes parts that keep what runs rely on, and names what others do not keep."""

import textwrap

import pytest
from lanes import slow
from test_own_parts import own  # noqa: F401  a fixture: a user's package and its conf

from graft.cli.main import main

pytestmark = pytest.mark.usefixtures("own_package")

BROKEN = {
    "backbone": (
        """
        from torch import nn

        from graft.backbones.base import ImageBackbone, Stage

        def stray(name: str = "stray", size: int = 16, channels: int = 1):
            network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            stages = [Stage("first", ("network.0",))]
            return ImageBackbone(name, network, size=size, channels=channels, feature_size=4, stages=stages)
        """,
        "_target_: broken.backbone.stray\nname: stray\nweights: null\nsize: 16\nchannels: 1\n",
    ),
    "term": (
        """
        import torch

        from graft.terms.base import Term

        class Forgetful(Term):
            def __init__(self, weight: float = 1.0, moves: bool = False):
                super().__init__()
                self.weight, self.moves, self.steps = weight, moves, 0

            def prepare(self, context):
                self.backbone = [context.backbone]

            def forward(self, step):
                self.steps += 1  # in no checkpoint
                if self.moves:
                    with torch.no_grad():
                        next(self.backbone[0].parameters()).add_(0.1)
                return self.steps * step.all_features.square().mean()
        """,
        "mine:\n  _target_: broken.term.Forgetful\n  weight: 1.0\n  moves: false\n",
    ),
}


@pytest.fixture
def broken(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").touch()
    for group, (code, text) in BROKEN.items():
        (tmp_path / "broken" / f"{group}.py").write_text(textwrap.dedent(code))
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "mine.yaml").write_text(f"# Mine\n{text}")
    return tmp_path


def checked(folder, monkeypatch, capsys, *words):
    """(exit code, lines that say FAIL, number of lines that say pass)."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("GRAFT_ROOT", str(folder))
    code = main(["check", f"--config-dir={folder / 'conf'}", *words])
    lines = capsys.readouterr().out.splitlines()
    return code, [line for line in lines if line.startswith("FAIL")], sum(line.startswith("pass") for line in lines)


def test_parameters_in_no_stage_are_found_when_it_is_built(broken, monkeypatch, capsys):
    words = ["backbone=mine", "allow=[broken]", "strategy=scratch"]
    code, (failed,), passed = checked(broken, monkeypatch, capsys, *words)
    assert (code, passed) == (1, 1)
    assert failed.startswith("FAIL  it builds: backbone stray: 148 of 188 parameters are in no stage, network.1.weight")


PAIRS = """
def texts():
    return [(f"film {index} is {['good', 'bad'][index % 2]}", index % 2) for index in range(40)]
"""
TEXTS = (
    "data=text data/domain@data.target=text_pairs data.target.samples={_target_:pairs.texts} allow=[pairs] "
    "backbone=lstm backbone.weights=null strategy=scratch data.batch_size=8"
)
UNSTEADY = """
import numpy as np

def changing(number: int = 40):
    random = np.random.default_rng()
    return [(random.integers(0, 256, (8, 8), dtype=np.uint8), index % 2) for index in range(number)]
"""


def test_a_source_that_changes_is_found(broken, monkeypatch, capsys):
    (broken / "broken" / "data.py").write_text(UNSTEADY)
    (broken / "conf" / "data" / "domain").mkdir(parents=True)
    text = "# Mine\ndefaults: [image_pairs, _self_]\nsamples:\n  _target_: broken.data.changing\n"
    (broken / "conf" / "data" / "domain" / "mine.yaml").write_text(text)
    code, (failed,), passed = checked(broken, monkeypatch, capsys, "data/domain=mine", "allow=[broken]")
    assert (code, passed) == (1, 1)
    assert "the fingerprint differs" in failed


@pytest.mark.parametrize(
    "words",
    slow(
        "data/domain=glyphs data.target.samples=200", "data/domain=diabetes", "data/domain=digit_rows", "texts", "own"
    ),
)
def test_sources_of_every_kind_pass(own, tmp_path, monkeypatch, capsys, words):  # noqa: F811
    if words == "texts":
        rows = [f"film {number}\t{'good' if number % 2 else 'bad'}" for number in range(40)]
        (tmp_path / "films.tsv").write_text("\n".join(["text\tlabel", *rows]))
        words = f"data/domain=text_file data.target.file={tmp_path / 'films.tsv'}"
    words = "data/domain=mine allow=[mypkg]" if words == "own" else words
    assert checked(own, monkeypatch, capsys, *words.split()) == (0, [], 10)


@pytest.mark.parametrize("words", slow("strategy=frozen", TEXTS))
def test_a_head_that_pools_by_itself_passes(tmp_path, monkeypatch, capsys, words):
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "__init__.py").write_text(PAIRS)
    (tmp_path / "conf").mkdir()
    assert checked(tmp_path, monkeypatch, capsys, "head=attention", *words.split()) == (0, [], 9)


def test_a_part_has_to_be_named(capsys):
    assert main(["check", "allow=[mypkg]"]) == 2
    assert "graft check <group>=<option>" in capsys.readouterr().out


@pytest.mark.parametrize("part", slow("strategy=mine", "head=mine", "selection=mine", "term=mine", "backbone=mine"))
def test_parts_of_users_pass(own, monkeypatch, capsys, part):  # noqa: F811
    assert checked(own, monkeypatch, capsys, part, "allow=[mypkg]") == (0, [], 9)


@pytest.mark.slow
def test_a_state_that_no_checkpoint_holds_is_found(broken, monkeypatch, capsys):
    code, (failed,), passed = checked(broken, monkeypatch, capsys, "term=mine", "allow=[broken]")
    assert (code, passed) == (1, 8)
    assert "FAIL  a run that is stopped in an epoch and resumed" in failed


@pytest.mark.slow
def test_a_frozen_parameter_that_moves_is_found(broken, monkeypatch, capsys):
    words = ["term=mine", "allow=[broken]", "term.mine.moves=true", "strategy=frozen"]
    code, failed, _ = checked(broken, monkeypatch, capsys, *words)
    assert code == 1
    assert any("what trains changes: backbone.network.conv1" in one for one in failed)


@pytest.mark.slow
def test_a_task_without_a_loss_is_found(own, monkeypatch, capsys):  # noqa: F811
    words = ["task=mine", "allow=[mypkg]", "data=table", "data/domain@data.target=diabetes", "backbone=mlp"]
    code, (failed,), _ = checked(own, monkeypatch, capsys, *words, "strategy=scratch", "backbone.weights=null")
    assert code == 1
    assert "NotImplementedError" in failed

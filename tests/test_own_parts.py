"""A user's own parts outside of the repository: a Python file and a yaml each, found by help, check and training."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from train_app import PROJECT

PARTS = {  # option -> (Python file, yaml file)
    "strategy": (
        """
        from typing import Annotated, Literal

        from annotated_types import Interval

        from graft.strategies.full import Full

        class Careful(Full):
            needs_pretrained = True

            def __init__(self, caution: Annotated[float, Interval(gt=0, lt=1)] = 0.5, train_bn: bool | None = None):
                super().__init__(train_bn)
                self.caution = caution
        """,
        "# Mine\n_target_: mypkg.strategy.Careful\ncaution: 0.5 # fraction of doubt\n",
    ),
    "term": (
        """
        from graft.config.types import NonNegative
        from graft.terms.base import TrainStep, Term

        class Small(Term):
            needs_pretrained = True

            def __init__(self, weight: NonNegative = 0.1):
                super().__init__()
                self.weight = weight

            def forward(self, step: TrainStep):
                return step.all_features.square().mean()
        """,
        "# Mine\nmine:\n  _target_: mypkg.term.Small\n  weight: 0.1 # of the term\n",
    ),
    "head": (
        """
        from graft.config.types import FractionBelowOne
        from graft.heads.linear import LinearHead

        class Doubting(LinearHead):
            def __init__(self, feature_size: int, num_outputs: int, doubt: FractionBelowOne = 0.1):
                super().__init__(feature_size, num_outputs)
        """,
        "# Mine\n_target_: mypkg.head.Doubting\nsharing: auto\ndoubt: 0.1 # fraction\n",
    ),
    "selection": (
        """
        from typing import Literal

        from graft.selection.target_val import TargetValidation

        class Mine(TargetValidation):
            name = "mine"

            def __init__(self, mood: Literal["good", "bad"] = "good"):
                self.mood = mood
        """,
        "# Mine\n_target_: mypkg.selection.Mine\nmood: good # of the day\n",
    ),
    "data/domain": (
        """
        from graft.config.types import Count
        from graft.data.sources.glyphs import Glyphs

        class Few(Glyphs):
            def __init__(self, few: Count = 100, **settings):
                super().__init__(samples=few, **settings)
        """,
        "# Mine\n_target_: mypkg.data_domain.Few\nfew: 100 # samples\nblock: 4\n",
    ),
    "backbone": (
        """
        from graft.backbones.lenet import lenet
        from graft.config.types import Auto, Count

        def tiny(name: str = "tiny", size: Count | None = 28, channels: Auto | Count = 1, more: Count = 1):
            return lenet(name, size, channels)
        """,
        "# Mine\n_target_: mypkg.backbone.tiny\nname: tiny\nweights: null\nsize: ${data.image_size}\n"
        "channels: auto\nmore: 1 # times\n",
    ),
    "task": (
        """
        from graft.tasks.base import Task

        class Counts(Task):
            name = "counts"
            label_kind = "numbers"
        """,
        "# Mine\n_target_: mypkg.task.Counts\n",
    ),
}
CHOICES = ["strategy=mine", "term=[mine]", "head=mine", "selection=mine", "backbone=mine"]
CHOICES += ["data/domain@data.source=mine", "backbone.weights=source"]
RUN = """
import runpy, sys
sys.argv = ["train.py", *sys.argv[1:]]
try:
    runpy.run_path("train.py", run_name="__main__")
except SystemExit as error:
    print("code", error.code, "torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "mypkg").mkdir()
    (folder / "mypkg" / "__init__.py").touch()
    for group, (code, text) in PARTS.items():
        (folder / "mypkg" / f"{group.replace('/', '_')}.py").write_text(textwrap.dedent(code))
        (folder / "conf" / group).mkdir(parents=True)
        (folder / "conf" / group / "mine.yaml").write_text(text)
    return folder


def train(own: Path, *arguments: str) -> tuple[str, str]:
    """(output, errors) of train.py with a user's package and config folder."""
    path = os.pathsep.join([str(own), str(PROJECT / "src")])
    environment = {**os.environ, "PYTHONPATH": path, "GRAFT_ROOT": str(own), "WANDB_MODE": "offline"}
    allow = [] if "--help" in arguments else ["allow=[mypkg]"]  # before the flag: argparse wants overrides in one piece
    command = [sys.executable, "-c", RUN, *arguments, *allow, f"--config-dir={own / 'conf'}"]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    return done.stdout, done.stderr


def test_help_lists_them_and_what_their_keys_may_hold(own):
    out, _ = train(own, "--help", *PARTS)
    lines = {" ".join(line.split()) for line in out.splitlines()}
    assert lines >= {
        "strategy=mine Mine",
        "strategy.caution=0.5 a number > 0 and < 1 # fraction of doubt",
        "term.mine.weight=0.1 a number >= 0 # of the term",
        "head.doubt=0.1 a number >= 0 and < 1 # fraction",
        "selection.mood=good good or bad # of the day",
        "data.target.few=100 an integer >= 1 # samples",
        "+data.target.size=32 an integer >= 1",
        "backbone.more=1 an integer >= 1 # times",
    }
    assert train(own, "--help")[0].count(" mine ") == len(PARTS)


def test_their_wrong_values_and_unknown_keys_are_refused_without_torch(own):
    wrong = ["strategy.caution=1", "term.mine.weight=-1", "head.doubt=2", "selection.mood=bd", "data.source.few=0"]
    wrong += ["backbone.more=x", "data.source.block=0"]
    unknown = [
        "strategy.cautoin",
        "term.mine.wait",
        "head.num_outputs",
        "selection.x",
        "data.source.samples",
        "backbone.x",
    ]
    out, err = train(own, *CHOICES, *wrong, *(f"+{key}=1" for key in unknown))
    assert out.endswith("code 2 False\n"), err
    told = sorted(line.split("`")[1] for line in err.splitlines() if line.startswith("  - "))
    assert told == sorted([*wrong, *unknown])
    assert "(did you mean bad?)" in err
    assert "(did you mean `strategy.caution`?)" in err


def test_what_they_need_is_honoured(own):
    out, err = train(own, "strategy=mine", "backbone.weights=null")
    assert "`strategy=mine` with `backbone.weights=null`: it needs pretrained weights" in err
    out, err = train(own, "term=[mine]", "backbone.weights=null")
    assert "`term=mine` with `backbone.weights=null`" in err
    assert out.endswith("code 2 False\n")


@pytest.mark.slow
def test_a_task_says_which_labels_it_takes(own):
    _, err = train(own, "experiment=tabular_medical", "task=mine")
    assert "`task=mine` with `data.target.label_kind=classes`: it needs data.target.label_kind=numbers" in err
    _, err = train(own, "experiment=tabular_regression", "task=mine", "training.validate_every_epochs=7")
    assert "A mistake in" in err
    assert "label_kind" not in err


@pytest.mark.slow
def test_they_train(own):
    small = ["data.image_size=16", "data.num_workers=0", "training.threads=1", "logger=csv", "debug=fast"]
    monitor = "+callbacks.lr={_target_: pytorch_lightning.callbacks.LearningRateMonitor, logging_interval: step}"
    out, err = train(own, *CHOICES, *small, "trainer=cpu", "callbacks.progress=null", monitor)
    assert out.endswith("code 0 True\n"), out + err
    assert "Not checked" not in err

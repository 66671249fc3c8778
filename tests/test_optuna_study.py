"""`hydra/sweeper=optuna` with Optuna, SQLite and real Trainers: trials, pruned ones, and going on."""

import json
import sys

import numpy as np
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from graft.cli import main as cli
from graft.cli import optuna_study
from graft.errors import GraftError
from graft.locations import CONF
from graft.runs.sweeps import read_jobs
from graft.studies import library

optuna = pytest.importorskip("optuna", minversion="4", reason="the extra `optuna` is not installed")

GIVEN = yaml.safe_load((CONF / "hydra/sweeper/optuna.yaml").read_text()) | {"study_name": "a", "storage": None}
SMALL = (
    *("-m", "hydra/sweeper=optuna", "data/domain@data.target=image_arrays", "data.image_size=16", "backbone=lenet"),
    *(
        "strategy=scratch",
        "data.batch_size=8",
        "data.labels_per_class=null",
        "trainer=cpu",
        "training.epochs=3",
        "training.threads=1",
    ),
    *("baselines=none", "logger=csv", "callbacks.progress=null", "save.model=none"),
    *("hydra.sweeper.sampler=random", "hydra.sweeper.seed=10", "hydra.sweeper.startup_trials=1"),
)
RATES = "optimizer.lr=1e-2,1e-9"  # of which seed 10 tries the better one first


@pytest.fixture
def study(tmp_path, monkeypatch, capsys):
    """Runs a study on pictures of two kinds; the exit code, the study and what is printed."""
    random = np.random.default_rng(0)
    content = {}
    for split, size in {"train": 32, "val": 24, "test": 24}.items():
        labels = np.arange(size) % 2
        content[f"{split}_images"] = random.integers(0, 128, (size, 16, 16), dtype=np.uint8)
        content[f"{split}_images"][:, 4:12, 4:12] += (100 * labels[:, None, None]).astype(np.uint8)
        content[f"{split}_labels"] = labels
    np.savez(tmp_path / "data.npz", **content)
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAFT_ROOT", str(tmp_path))

    def run(*overrides):
        folder = tmp_path / "sweep"
        monkeypatch.setattr(sys, "argv", ["train.py"])
        code = cli.main(
            ["train", *SMALL, f"data.target.file={tmp_path / 'data.npz'}", f"hydra.sweep.dir={folder}", *overrides]
        )
        file = f"sqlite:///{folder / 'study.db'}"
        found = optuna.load_study(study_name="train", storage=file) if (folder / "study.db").exists() else None
        return code, found, capsys.readouterr()

    return run


def states(found):
    return [one.state.name for one in found.trials]


def test_a_trial_that_is_behind_is_pruned(study, tmp_path):
    code, found, shown = study(RATES, "hydra.sweeper.n_trials=2")
    assert code == 0, shown.err
    assert found.direction.name == "MAXIMIZE"
    assert states(found) == ["COMPLETE", "PRUNED"], shown.out
    assert [one.params["optimizer.lr"] for one in found.trials] == ["0.01", "1e-09"]
    complete, pruned = found.trials
    jobs = {one.overrides["optimizer.lr"]: one for one in read_jobs(tmp_path / "sweep")}
    results = jobs["0.01"].results
    assert complete.value == results["selection"]["value"]  # validation, and not the test split
    with (tmp_path / "sweep" / jobs["0.01"].folder / "metrics.csv").open() as file:
        name, *rows = file.read().splitlines()
    column = name.split(",").index("val/target/acc")
    logged = [float(row.split(",")[column]) for row in rows if row.split(",")[column]]
    assert list(complete.intermediate_values.values()) == pytest.approx(logged)
    assert list(complete.intermediate_values) == [1, 2, 3]
    assert len(pruned.intermediate_values) < 3
    assert jobs["1e-09"].pruned.startswith("Pruned after epoch")
    assert not list((tmp_path / "sweep" / jobs["1e-09"].folder).glob("checkpoints/*.ckpt"))
    assert "2 trials, 1 to their end, 1 pruned" in shown.out
    assert "pruned" in (tmp_path / "sweep/summary.md").read_text()
    assert json.loads((tmp_path / "sweep" / jobs["1e-09"].folder / "results.json").read_text())["status"] == "pruned"


@pytest.mark.slow
def test_the_same_command_goes_on_to_more_trials_those_first_that_a_kill_left_open(study):
    code, found, shown = study(RATES, "hydra.sweeper.n_trials=1")
    assert code == 0, shown.err
    begun = found.ask(dict(found.trials[0].distributions))
    code, found, shown = study(RATES, "hydra.sweeper.n_trials=3")
    assert code == 0, shown.err
    assert len(found.trials) == 3
    assert found.trials[begun.number].state.name in ("COMPLETE", "PRUNED")
    assert "Launching" not in shown.out
    assert "3 trials" in shown.out
    code, again, _ = study(RATES, "hydra.sweeper.n_trials=3")
    assert (code, len(again.trials)) == (0, 3)
    code, _, shown = study(RATES, "hydra.sweeper.n_trials=4", "hydra.sweeper.direction=minimize")
    assert code == 2
    assert "hydra.sweeper.direction: the study `train`" in shown.err


def test_a_loss_is_minimised():
    config = {"task": {"_target_": "graft.tasks.regression.Regression"}, "source_task": None}
    config["selection"] = {"_target_": "graft.selection.target_val.TargetValidation"}
    assert optuna_study.direction_of(OmegaConf.create(config)) == "minimize"
    config["task"] = {"_target_": "graft.tasks.multiclass.Multiclass"}
    assert optuna_study.direction_of(OmegaConf.create(config)) == "maximize"


def test_what_is_searched():
    words = [
        *("optimizer.lr=tag(log,interval(1e-4,1e-1))", "training.epochs=int(interval(2,8))", "strategy=frozen,full"),
        *("data.batch_size=range(8,33,8)", "name=a"),
    ]
    fixed, space = optuna_study.parsed(OverridesParser.create(), words)
    distributions = optuna.distributions
    assert fixed == ["name=a"]
    assert space == {
        "optimizer.lr": distributions.FloatDistribution(1e-4, 1e-1, log=True),
        "training.epochs": distributions.IntDistribution(2, 8),
        "strategy": distributions.CategoricalDistribution(["frozen", "full"]),
        "data.batch_size": distributions.IntDistribution(8, 32, step=8),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer.lr=1e-3,1e-2", "seed=0,1"], "`seed=0,1` under hydra/sweeper=optuna: it would search for the luck"),
        (["optimizer.lr=1e-3"], "has nothing to search"),
        (["optimizer.lr=tag(log,interval(0,1))"], "`optimizer.lr=tag"),
    ],
)
def test_what_cannot_be_searched_is_refused(words, message):
    with pytest.raises(GraftError, match=message.replace("(", r"\(")):
        optuna_study.parsed(OverridesParser.create(), words)


def test_wrong_settings_are_told_at_once():
    with pytest.raises(GraftError) as error:
        library.settings_of(GIVEN | {"n_trials": 0, "sampler": "grid", "pruner": "best"})
    assert "`hydra.sweeper.n_trials=0`: must be a whole number, 1 or more" in str(error.value)
    assert "`hydra.sweeper.sampler=grid`: must be one of tpe, random, gp, nsga2" in str(error.value)
    assert "`hydra.sweeper.pruner=best`: must be one of median, hyperband, null" in str(error.value)
    for sampler in library.SAMPLERS:
        for pruner in library.PRUNERS:
            settings = library.settings_of(GIVEN | {"sampler": sampler, "pruner": pruner})
            assert library.pruner_of(settings, 10)
            if sampler != "gp":  # needs torch's linear algebra and a warning's silence
                assert library.sampler_of(settings, 0)


def test_without_the_extra_one_line_says_what_to_install(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, found, shown = study("optimizer.lr=1e-3,1e-2")
    assert (code, found) == (2, None)
    assert "`hydra/sweeper=optuna` needs Optuna" in shown.err
    assert "pip install 'optuna>=4'" in shown.err

"""Pretraining on the target's own training inputs: which samples it sees, what is kept, and what is refused."""

import json
from dataclasses import replace

import pytest
import torch

from graft.errors import GraftError
from graft.experiment import assemble
from graft.pretrain import pretrain
from graft.runs.folder import RESULTS
from tests.small_run import config_in, train_in

TINY = [
    *("data.source=null", "backbone=lenet", "backbone.dropout=0", "data.image_size=16", "backbone.weights=target"),
    *("training.threads=1", "trainer=cpu", "logger=csv", "training.epochs=1", "pretrain.epochs=1"),
]
SAMPLES = 200
GLYPHS = ["data/domain@data.target=glyphs", f"data.target.samples={SAMPLES}", "pretrain.batch_size=40"]


class Poison:
    """Samples at which nothing may look."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        raise AssertionError("a held out sample was looked at")


def learned(tmp_path, change, *overrides, folder="run"):
    """The backbone's weights after pretraining on data that `change` has made of the target."""
    experiment = assemble(config_in(tmp_path, *TINY, *overrides, folder=folder, cache=tmp_path / folder))
    domains = experiment.data.domains
    domains["target"] = change(domains["target"])
    pretrain(experiment)
    return experiment, experiment.module.backbone.state_dict()


def poisoned(target):
    held_out = {
        name: replace(split, inputs=Poison(len(split))) for name, split in (("val", target.val), ("test", target.test))
    }
    return replace(target, **held_out)


def test_validation_and_test_samples_and_all_labels_change_nothing(tmp_path):
    options = [*GLYPHS, "pretrain=vicreg", "data.labels_per_class=2"]
    experiment, plain = learned(tmp_path, lambda target: target, *options)
    _, without = learned(tmp_path, poisoned, *options, folder="poisoned")
    assert all(torch.equal(plain[name], without[name]) for name in plain)
    assert len(experiment.data.domains["target"].train) == 20
    assert (experiment.pretrained.samples, experiment.pretrained.labels) == (SAMPLES, 0), "the budget is of labels"


def test_the_record_says_what_was_learned_from_and_a_second_run_takes_it_from_the_cache(tmp_path, capsys):
    options = [*GLYPHS, "pretrain=simclr", "strategy=frozen", "pretrain.epochs=2"]
    first = train_in(tmp_path, *TINY, *options, folder="first")
    assert "Pretraining on the target's training inputs (glyphs)" in capsys.readouterr().out
    second = train_in(tmp_path, *TINY, *options, folder="second")
    assert "Pretraining" not in capsys.readouterr().out
    assert first["metrics"] == second["metrics"]
    kept = json.loads((tmp_path / "second" / RESULTS).read_text())["weights"]
    assert kept["source"] == "target (cached)"
    loss = kept["pretraining"].pop("loss")
    assert 0 < loss["train/term/simclr"] < 10
    assert kept["pretraining"] == {
        **{"domain": "target", "data": "glyphs", "samples": SAMPLES, "labels": 0, "terms": ["simclr"], "epochs": 2}
    }


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "lp_ft", "lora"])
def test_it_composes_with_strategies_and_a_source_beside(tmp_path, strategy):
    beside = [one for one in TINY if one != "data.source=null"]
    options = [f"strategy={strategy}", "pretrain=byol", "training.epochs=2", "data.source.samples=200"]
    results = train_in(tmp_path, *beside, *options)
    assert results["weights"]["pretraining"]["domain"] == "target"
    assert "forgetting" not in results["metrics"]


@pytest.mark.slow
def test_a_fold_that_is_tested_is_not_learned_from(tmp_path):
    options = ["pretrain=vicreg", "data.evaluation=kfold", "data.folds=3", "data.fold=1"]
    options += ["data.labels_per_class=null"]
    experiment, _ = learned(tmp_path, poisoned, *options)
    assert experiment.pretrained.samples == len(experiment.data.domains["target"].train)


@pytest.mark.slow
def test_the_targets_labels_are_refused_also_where_nothing_checked_the_config(tmp_path):
    with pytest.raises(GraftError, match="no labels"):
        learned(tmp_path, lambda target: target)

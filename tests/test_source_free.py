"""A finished run's classifier stays and what feeds it trains, on a target without labels and without the source."""

import pytest
import torch
from safetensors.torch import load_file
from small_run import config_in, train_in

from graft.errors import GraftError
from graft.experiment import assemble

TINY = [
    "data.source=null",
    "data.image_size=16",
    "data.labels_per_class=null",
    "data.epoch=3",
    "data.batch_size=8",
    "backbone=lenet",
    "head=bottleneck",
    "head.width=16",
    "selection=last",
    "training.epochs=1",
    "training.threads=1",
    "trainer=cpu",
    "logger=csv",
    "callbacks.progress=null",
]
SOURCE = ["strategy=scratch", "backbone.weights=null"]
ADAPTED = ["data.target_setting=unsupervised", "objective.alpha=null", "strategy=fixed_head", "term=[mean_teacher]"]


def weights(folder):
    return load_file(folder / "model" / "weights.safetensors")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a finished run."""
    root = tmp_path_factory.mktemp("finished")
    train_in(root, *TINY, *SOURCE)
    return root / "run"


def test_the_classifier_of_a_finished_run_stays_and_the_rest_moves(source, tmp_path):
    begin = [f"head.weights={source}", f"backbone.weights={source}"]
    results = train_in(tmp_path, *TINY, *ADAPTED, *begin, "data.epoch=4", folder="adapted")
    assert results["data"]["target"]["labels"]["train"] == 0
    before, after = weights(source), weights(tmp_path / "adapted")
    kept = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert kept == {name for name in after if name.startswith("head.classifier.") or ".input_" in name}
    by_name = {part["name"]: part for part in results["parameters"]["groups"]}
    assert by_name["head/target"]["trainable"] == 0
    assert by_name["bottleneck/target"]["trainable"] == by_name["bottleneck/target"]["parameters"]


def test_a_head_of_another_kind_or_of_other_classes_is_refused(source, tmp_path):
    begin = [*TINY, *ADAPTED, f"backbone.weights={source}"]
    with pytest.raises(GraftError, match=r"head\.weights=.*another one, .*head\.width=16"):
        assemble(config_in(tmp_path, *begin, f"head.weights={source}", "head.width=8"))
    with pytest.raises(GraftError, match=r"no such folder"):
        assemble(config_in(tmp_path, *begin, f"head.weights={tmp_path / 'nowhere'}"))
    table = ["data=table", "backbone=mlp", "data.source=null", "objective.alpha=0"]
    with pytest.raises(GraftError, match=r"tells .* apart, but the target has \('benign', 'malignant'\)"):
        assemble(config_in(tmp_path, *table, *SOURCE, "head=bottleneck", f"head.weights={source}"))


@pytest.mark.parametrize("strategy", ["full", "fixed_head"])
def test_a_head_that_no_label_trains_has_to_be_loaded(source, tmp_path, strategy):
    with pytest.raises(GraftError, match=r"which is random\. Begin with that of a finished run: head\.weights="):
        assemble(config_in(tmp_path, *TINY, *ADAPTED, f"backbone.weights={source}", f"strategy={strategy}"))

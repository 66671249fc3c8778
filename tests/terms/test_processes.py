"""Two processes train as one does on both of their batches: terms whose state or loss is of all samples of a step."""

import numpy as np
import pytest
from PIL import Image

from tests.processes import check_two_train_as_one

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*")]  # of Lightning, about forked processes


@pytest.fixture
def art(tmp_path):
    """A folder of three domains of 2 classes, which differ in how bright they are."""
    random = np.random.default_rng(0)
    for domain, light in (("ink", 40), ("oil", 120), ("pen", 200)):
        for name, shift in (("cat", 0), ("dog", 40)):
            (tmp_path / "art" / domain / name).mkdir(parents=True)
            for i in range(12):
                pixels = random.integers(light, light + 15, (16, 16), dtype=np.uint8)
                pixels[:8] += shift // 4
                Image.fromarray(pixels).save(tmp_path / "art" / domain / name / f"{i}.png")
    return tmp_path / "art"


@pytest.mark.parametrize("term", ["groupdro", "vrex"])
def test_losses_by_source_are_of_all_processes(tmp_path, art, term):
    options = [
        *("data=domains", f"data.root={art}", "data.sources=[ink,oil]", "data.target_domain=pen", "objective.alpha=1"),
        *("strategy=scratch", f"term=[{term}]", "data.num_workers=0"),
    ]
    whole = check_two_train_as_one(tmp_path, *options, *(["term.groupdro.eta=100"] if term == "groupdro" else []))
    if term == "groupdro":
        weights = whole["terms.groupdro.group_weights"].tolist()
        assert weights == [pytest.approx(w, abs=0.4) for w in (0.5, 0.5)]
        assert abs(weights[0] - 0.5) > 0.01, weights


def test_shots_memory_and_pseudo_labels_are_of_all_processes(tmp_path):
    options = [
        *("data.source.samples=300", "backbone.weights=source", "pretrain.epochs=1", "strategy=full", "term=[shot]"),
        *("data.labels_per_class=null", "data.target_setting=unsupervised", "objective.alpha=null", "data.epoch=34"),
    ]
    whole = check_two_train_as_one(tmp_path, *options, batch_size=32)
    assert 0 < whole["terms.shot.seen"] < 1000  # of 68 steps of 32: they were computed again


def test_a_partly_labelled_target_is_that_of_one_process(tmp_path):
    options = [
        *("data.source.samples=300", "strategy=scratch", "objective.alpha=0.5", "term=[information_maximisation]"),
        *("data.target_setting=semi", "data.labels_per_class=4"),
    ]
    check_two_train_as_one(tmp_path, *options)


def test_the_contrast_with_names_is_of_the_pairs_of_all_processes(tmp_path):
    options = ["data.source=null", "strategy=scratch", "data.labels_per_class=8", "data.augment=none", "term=[clip]"]
    head = ["head=class_names", "head.projection=none", "head.tower.size=500", "head.tower.hidden=8"]
    check_two_train_as_one(tmp_path, *options, *head, "term.clip.weight=5", rtol=1e-5)


def test_covariances_and_confusion_of_classes_are_of_all_processes(tmp_path):
    options = [
        *("data.source.samples=300", "strategy=scratch", "objective.alpha=1", "term=[coral,mcc]"),
        *("term.coral.weight=100", "data.target_setting=unsupervised", "data.labels_per_class=null"),
    ]
    check_two_train_as_one(tmp_path, *options)

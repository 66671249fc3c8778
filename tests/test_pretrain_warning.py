"""A pretraining that taught next to nothing is named, with chance level and the key that helps."""

from types import SimpleNamespace

import pytest
import torch

from graft.pretrain import learned_little
from graft.tasks.multiclass import Multiclass
from graft.tasks.regression import Regression


@pytest.mark.parametrize(
    ("accuracy", "samples", "warned"), [(0.25, 400, True), (0.28, 400, True), (0.6, 400, False), (0.3, 40_000, False)]
)
def test_a_pretraining_near_chance_is_named(accuracy, samples, warned):
    val = SimpleNamespace(labels=torch.arange(samples) % 4)
    data = SimpleNamespace(domains={"source": SimpleNamespace(val=val)})
    line = learned_little({"val/source/acc": accuracy}, data, Multiclass())
    assert bool(line) == warned
    if warned:
        assert f"val/source/acc={accuracy:.3f}, and 0.250 is the share" in line
        assert "pretrain.epochs" in line
    assert learned_little({"val/source/mae": 3.0}, data, Regression()) == ""


def test_a_task_of_ones_own_counts_by_its_kind_of_labels():
    class Ordinal(Multiclass):
        name = "ordinal"

    val = SimpleNamespace(labels=torch.arange(400) % 4)
    data = SimpleNamespace(domains={"source": SimpleNamespace(val=val)})
    assert "learned next to nothing" in learned_little({"val/source/acc": 0.25}, data, Ordinal())
    assert learned_little({"val/source/acc": 0.25}, data, Regression()) == ""

"""SimCLR: its value and gradient, and pretraining by it as a run inside the run."""

import pytest
import torch
import torch.nn.functional as F

from graft.errors import GraftError
from graft.terms.contrastive.simclr import contrast_of_views
from tests.small_run import train_in


def by_hand(first, second, temperature):
    """NT-Xent sample by sample, as the paper's equation 1 has it."""
    views = [F.normalize(one, dim=0) for one in (*first, *second)]
    count = len(first)
    total = 0.0
    for i, own in enumerate(views):
        partner = views[(i + count) % (2 * count)]
        others = torch.stack([(own @ other / temperature).exp() for k, other in enumerate(views) if k != i])
        total = total - ((own @ partner / temperature).exp() / others.sum()).log()
    return total / len(views)


def test_value_and_gradient_are_those_of_the_paper():
    torch.manual_seed(0)
    first, second = (torch.randn(5, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    found, expected = contrast_of_views(first, second, 0.3), by_hand(first, second, 0.3)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for one, other in zip(
        torch.autograd.grad(found, (first, second)), torch.autograd.grad(expected, (first, second)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)
    assert torch.equal(contrast_of_views(second, first, 0.3), contrast_of_views(second, first, 0.3))
    torch.testing.assert_close(contrast_of_views(second, first, 0.3), found)


TINY = [
    *("experiment=resnet_ft", "backbone=lenet", "data.image_size=16", "data.source.samples=200", "data.num_workers=0"),
    *("training.threads=1", "trainer=cpu", "logger=csv", "training.epochs=1", "pretrain.epochs=2"),
]


@pytest.fixture
def run(tmp_path):
    def run(*overrides, folder="run", cache="cache"):
        return train_in(tmp_path, *TINY, *overrides, folder=folder, cache=tmp_path / cache)

    return run


def test_pretraining_without_labels_is_cached_and_leaves_only_the_backbone(run, capsys):
    first = run("pretrain=simclr", "strategy=frozen")
    assert "Pretraining on the source" in capsys.readouterr().out
    assert first["weights"]["matched"] == first["weights"]["total"]
    assert "forgetting" not in first["metrics"], "no head has learned the source"
    second = run("pretrain=simclr", "strategy=frozen", folder="second")
    assert "Pretraining on the source" not in capsys.readouterr().out
    assert second["metrics"] == first["metrics"]
    supervised = run("strategy=frozen", folder="third")
    assert supervised["metrics"]["test/target/loss"] != first["metrics"]["test/target/loss"]


@pytest.mark.slow
def test_labels_of_the_source_change_nothing(run, monkeypatch):
    first = run("pretrain=simclr", "strategy=frozen")
    from graft.data.sources.glyphs import Glyphs

    read = Glyphs.read

    def relabelled(self):
        raw = read(self)
        for samples in raw.splits.values():
            samples.labels[:] = [*samples.labels[1:], samples.labels[0]]
        return raw

    monkeypatch.setattr(Glyphs, "read", relabelled)
    second = run("pretrain=simclr", "strategy=frozen", folder="second", cache="other")
    for name in ("test/target/loss", "test/target/acc"):
        assert second["metrics"][name] == first["metrics"][name]


@pytest.mark.slow
def test_what_cannot_be_pretrained_is_said(run):
    with pytest.raises(GraftError, match=r"pretrain\.objective\.alpha=1"):
        run("pretrain.objective.alpha=null")
    with pytest.raises(GraftError, match="train on target"):
        run("pretrain=simclr", "pretrain.term.simclr.domain=target")
    with pytest.raises(GraftError, match="source"):
        run("pretrain=simclr", "objective.alpha=0", "term=[lwf]")

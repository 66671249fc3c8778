"""Tip-Adapter: its logits against the paper's formula, what it keeps, a search over its numbers, and its training."""

import pytest
import torch
from small_run import train_in

import graft
from graft.cli.notebook import check_composed
from graft.errors import GraftError
from graft.heads.base import HeadContext
from graft.heads.tip_adapter import TipAdapterHead
from graft.heads.towers.base import Tower

CLASSES = ("one", "two", "three")


class Fixed(Tower):
    learns = False

    def forward(self, texts):
        random = torch.Generator().manual_seed(len(texts))
        return torch.randn(len(texts), self.size, generator=random)


def head_of(**keys):
    head = TipAdapterHead(HeadContext(4, 3, CLASSES), Fixed(4), scale=3.0, **keys)
    head.ask_tower()
    return head


def test_logits_are_the_papers_and_only_the_samples_train():
    head = head_of(alpha=1.5, beta=2.0).double()
    samples, labels = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 2, 1, 0, 2])
    head.fill(samples, labels)
    features = torch.randn(6, 4, dtype=torch.float64)
    unit, keys = (one / one.norm(dim=1, keepdim=True) for one in (features, samples))
    rows = head.rows / head.rows.norm(dim=1, keepdim=True)
    expected = 3.0 * unit @ rows.T
    for place, row in enumerate(unit):
        for key, label in zip(keys, labels.tolist(), strict=True):
            expected[place, label] += 1.5 * torch.exp(-2.0 * (1 - row @ key))
    torch.testing.assert_close(head(features), expected, rtol=0, atol=1e-6)  # the scale is kept in single precision
    assert [name for name, _ in head.named_parameters()] == ["keys"]
    other = head_of().double()
    other.load_state_dict(head.state_dict())
    torch.testing.assert_close(other(features), head(features), rtol=0, atol=0)


def keys_of(folder):
    return [
        *("data/domain@data.target=digits", "data.source=null", "data.labels_per_class=5", "trainer=cpu", "logger=[]"),
        *("backbone=clip_image", f"backbone.name={folder}", "backbone.weights=pretrained", "save.neighbours=false"),
        *("head/tower=encoder", f"head.tower.name={folder}", "head.tower.size=12"),
    ]


def test_a_run_chooses_both_numbers_on_validation_and_its_model_keeps_the_samples(clip_folder, tmp_path):
    own = ["strategy=tip_adapter", "strategy.alphas=[0,1,50]", "strategy.betas=[1,5]"]
    results = train_in(tmp_path, *keys_of(clip_folder), *own)
    found = results["tip_adapter"]
    assert found["samples"] == results["labels"]["training"] == 50
    assert len(found["tried"]) == 6
    assert found["value"] == max(one["value"] for one in found["tried"]) == results["selection"]["value"]
    without = next(one["value"] for one in found["tried"] if one["alpha"] == 0)
    assert found["value"] > without + 0.1  # random names know nothing, neighbours in random features something
    model = graft.load_run(tmp_path / "run")
    assert model.head.strengths.tolist() == [found["alpha"], found["beta"]]
    assert model.head.keys.shape == (50, 12)


@pytest.mark.slow
def test_the_samples_train_where_the_backbone_is_frozen(clip_folder, tmp_path):
    own = ["head=tip_adapter", "strategy=frozen", "training.epochs=20", "optimizer.lr=0.01"]
    results = train_in(tmp_path, *own, *keys_of(clip_folder))
    assert results["parameters"]["trainable"] == 50 * 12
    assert results["cost"]["target_steps"] > 0


def test_what_it_cannot_be_meant_with_is_refused():
    with pytest.raises(GraftError) as error:
        check_composed(["head=tip_adapter", "head/tower=characters", "backbone.weights=imagenet"])
    for message in ("strategy=tip_adapter or frozen", "use head/tower=encoder"):
        assert message in str(error.value)
    with pytest.raises(GraftError, match="use head=tip_adapter, or strategy=frozen"):
        check_composed(["strategy=tip_adapter", "head=linear", "backbone.weights=imagenet"])

"""Attributions add up to what they explain, and those that cannot be believed are withheld."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from graft.backbones.cnn import cnn
from graft.backbones.fusion import Fusion
from graft.backbones.recurrent import RecurrentBackbone
from graft.backbones.tabular import ft_transformer, mlp
from graft.inputs.base import Fields
from graft.inputs.columns import Column, Columns
from graft.inputs.fusion import PRESENT, named
from graft.inspection.attribution import SMALLEST_MAP, cam_layer, grad_cam, integrated_gradients
from graft.inspection.faithfulness import ALL, Verdict, deletion_area, random_area, randomised, rank_correlation
from graft.inspection.subject import Place, Question, subject_of, subjects_of
from graft.tasks.binary import Binary
from graft.tasks.multiclass import Multiclass
from graft.tasks.regression import Regression

COLUMNS = Columns(
    [Column("age", "numeric"), Column("height", "numeric"), Column("job", "categorical", ("cook", "smith"))]
)


def image(tiny_backbone):
    return tiny_backbone(), torch.rand(1, 1, 8, 8)


def text(tiny_backbone):
    backbone = RecurrentBackbone("lstm", texts=["good film", "bad plot"], embedding_size=6, hidden_size=5)
    ids = torch.tensor([[2, 3, 4, 0]])
    return backbone, Fields({"input_ids": ids, "attention_mask": (ids > 0).long()})


def table(tiny_backbone):
    return mlp(COLUMNS, width=8), row()


def table_of_tokens(tiny_backbone):
    return ft_transformer(COLUMNS, width=8, heads=2, blocks=1), row()


def row():
    return Fields({"numbers": torch.tensor([[0.7, -1.2]]), "missing": torch.zeros(1, 2), "codes": torch.tensor([[2]])})


def doubles(inputs):
    if isinstance(inputs, torch.Tensor):
        return inputs.double()
    tensors = {name: one.double() if one.is_floating_point() else one for name, one in inputs.tensors.items()}
    return Fields(tensors)


def asked(backbone, inputs, task, outputs):
    """Model, subject and question in float64."""
    torch.manual_seed(0)
    head = nn.Linear(backbone.feature_size, outputs)
    model = SimpleNamespace(backbone=backbone.double().eval(), head=head.double(), task=task)
    model.backbone.requires_grad_(False)
    model.head.requires_grad_(False)
    subject = subjects_of(model, doubles(inputs))[""]
    logits = [subject.logits(model.backbone, model.head, x) for x in (subject.values, subject.baseline)]
    return model, subject, Question.of(task, *logits), logits


@pytest.mark.parametrize("make", [image, text, table, table_of_tokens])
@pytest.mark.parametrize(("task", "outputs"), [(Multiclass(), 3), (Binary(), 1), (Regression(), 1)])
def test_integrated_gradients_add_up_to_the_difference_of_the_scores(tiny_backbone, make, task, outputs):
    pytest.importorskip("captum")
    torch.manual_seed(0)
    model, subject, question, logits = asked(*make(tiny_backbone), task, outputs)
    found = integrated_gradients(subject, question, model.backbone, model.head, steps=300)
    expected = float(question.score(logits[0]) - question.score(logits[1]))
    assert found.dtype == torch.float64
    assert float(found.sum()) == pytest.approx(expected, rel=2e-2, abs=1e-4)  # ReLU has kinks on the way
    # the sample itself gives the logits that the network gives without any detour
    direct = model.head(model.backbone(doubles(make_again(subject, logits, model))))
    torch.testing.assert_close(direct, logits[0])


def make_again(subject, logits, model):
    """The inputs of the subject once more, by the module that it replaces."""
    torch.manual_seed(0)
    if not subject.names:
        return subject.values
    if "age" in subject.names:
        return row()
    ids = torch.tensor([[2, 3, 4]])
    return Fields({"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def test_names_of_units_are_words_and_columns(tiny_backbone):
    _, words, *_ = asked(*text(tiny_backbone), Multiclass(), 2)
    assert words.count == 3
    assert set(words.names) <= {"good", "film", "bad", "plot"}
    _, columns, *_ = asked(*table(tiny_backbone), Multiclass(), 2)
    assert columns.names == ("age", "height", "job")


def test_grad_cam_looks_at_maps_that_are_not_too_small(tiny_backbone):
    pytest.importorskip("captum")
    torch.manual_seed(0)
    model, subject, question, _ = asked(tiny_backbone(), torch.rand(1, 1, 16, 16), Multiclass(), 3)
    assert cam_layer(model.backbone, subject) == "network.layer1"
    found = grad_cam(subject, question, model.backbone, model.head)
    assert found.shape == (subject.count,)
    assert float(found.min()) >= 0
    _, small, *_ = asked(tiny_backbone(), torch.rand(1, 1, SMALLEST_MAP - 1, SMALLEST_MAP - 1), Multiclass(), 3)
    assert cam_layer(model.backbone, small) is None


@pytest.mark.parametrize("part", ["image", "table"])
def test_parts_of_a_fusion_are_attributed_with_the_others_held(part):
    pytest.importorskip("captum")
    torch.manual_seed(0)
    backbone = Fusion({"image": cnn(size=8, channels=1), "table": mlp(COLUMNS, width=8, blocks=1)}, width=4)
    head = nn.Linear(backbone.feature_size, 3).double().requires_grad_(False)
    backbone.double().eval().requires_grad_(False)
    model = SimpleNamespace(backbone=backbone, head=head, task=Multiclass())
    inputs = doubles(Fields({"image": torch.randn(1, 1, 8, 8), **named("table", row()), PRESENT: torch.ones(1, 2) > 0}))
    subject = subjects_of(model, inputs)[part]
    both = [subject.logits(backbone, head, x) for x in (subject.values, subject.baseline)]
    torch.testing.assert_close(both[0], head(backbone(inputs)))
    question = Question.of(model.task, *both)
    found = integrated_gradients(subject, question, backbone, head, steps=300)
    expected = float(question.score(both[0]) - question.score(both[1]))
    assert float(found.sum()) == pytest.approx(expected, abs=0.02 * max(abs(expected), 0.1))
    if part == "image":  # the other part's inputs matter, and stay as they are
        changed = Fields({**inputs.tensors, "table.numbers": inputs["table.numbers"] + 1})
        assert not torch.allclose(subjects_of(model, changed)[part].logits(backbone, head, subject.baseline), both[1])
    lacks = Fields({**inputs.tensors, PRESENT: torch.tensor([[part == "image", part == "table"]])})
    assert [*subjects_of(model, lacks)] == [part]


class Corner(nn.Module):
    """Features are the first pixel's value and nothing else."""

    def __init__(self, backbone):
        super().__init__()
        self.stages = backbone.stages
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x[:, 0, 0, :1] * self.weight


def test_removing_what_matters_takes_more_away_than_chance(tiny_backbone):
    """Of a network that sees one corner alone, the right order has the smallest area, the reversed one the largest."""
    backbone = Corner(tiny_backbone()).double()
    head = nn.Linear(1, 2).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[5.0], [-5.0]]))
        head.bias.zero_()
    model = SimpleNamespace(backbone=backbone, head=head.requires_grad_(False), task=Multiclass())
    backbone.requires_grad_(False)
    subject = subject_of(backbone, torch.ones(1, 1, 8, 8, dtype=torch.float64), Place())
    logits = [subject.logits(backbone, head, x) for x in (subject.values, subject.baseline)]
    question = Question.of(model.task, *logits)
    best = torch.arange(subject.count)
    area, worst = (deletion_area(subject, question, model, order) for order in (best, best.flip(0)))
    chance = random_area(subject, question, model)
    assert area < chance < worst
    assert area == pytest.approx(0.5 + 0.5 * 0.5 / 16, abs=1e-3)  # gone after the first of 16 steps, then even odds
    assert worst == pytest.approx(1 - 0.5 * 0.5 / 16, abs=1e-3)


def test_random_weights_are_random_from_the_head_on(tiny_backbone):
    backbone = tiny_backbone()
    torch.manual_seed(0)
    model = SimpleNamespace(backbone=backbone, head=nn.Linear(6, 3))
    seen = []
    for name, network, head in randomised(model):
        changed = {
            stage.name
            for stage in backbone.stages
            if any(
                not torch.equal(one, network.stage_parameters(stage.name)[key])
                for key, one in backbone.stage_parameters(stage.name).items()
            )
        }
        assert not torch.equal(head.weight, model.head.weight)
        assert torch.equal(head.weight.flatten().sort().values, model.head.weight.flatten().sort().values)
        seen.append((name, changed))
    assert seen[0] == ("head", set())
    assert seen[-1] == (ALL, {"stem", "layer1"})


def test_rank_correlation_is_spearmans():
    random = np.random.default_rng(0)
    first = random.integers(0, 6, 50).astype(float)
    second = first + random.normal(size=50)
    assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert rank_correlation(first, np.zeros(50)) == 0


def test_an_attribution_that_fails_a_check_is_withheld_with_the_number():
    assert not Verdict(0.3, 0.5, {"head": 0.9, ALL: 0.1}).withheld
    assert "no more than chance (0.50, 0.50)" in Verdict(0.5, 0.5, {ALL: 0.1}).withheld
    assert "rank correlation 0.80" in Verdict(0.3, 0.5, {"head": 0.1, ALL: 0.8}).withheld
    assert "rank correlation -0.90" in Verdict(0.3, 0.5, {ALL: -0.9}).withheld

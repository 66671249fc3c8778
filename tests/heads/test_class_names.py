"""The head of names, its spelling tower and CLIP's contrast, against their formulas; what cannot be meant together."""

from dataclasses import replace

import pytest
import torch
import toy

from graft.backbones.lenet import lenet
from graft.cli.notebook import check_composed
from graft.errors import GraftError
from graft.heads.base import HeadContext
from graft.heads.class_names import ClassNamesHead
from graft.heads.towers.base import Tower
from graft.heads.towers.characters import Characters
from graft.inputs.base import DomainBatch
from graft.model.folder import Description
from graft.model.heads import LearnedHead
from graft.network import check_names
from graft.terms.base import TrainStep
from graft.terms.contrastive.clip import CLIP, contrast_of_pairs

ANIMALS, OTHERS = ("cat", "sea_lion", "dog"), ("horse", "ox")


class Lengths(Tower):
    """A tower that stays as it is: a text's length and its first letters."""

    learns = False

    def forward(self, texts):
        return torch.tensor([[len(text), ord(text[0]), ord(text[-1]), 1.0] for text in texts])


def head_of(classes=ANIMALS, tower=None, **keys):
    torch.manual_seed(0)
    return ClassNamesHead(HeadContext(6, len(classes), classes), tower or Characters(4, 5), **keys)


def unit(vectors):
    return vectors / vectors.square().sum(1, keepdim=True).sqrt()


def test_logits_are_scaled_cosines_with_the_mean_over_templates():
    head = head_of(
        tower=Lengths(4), templates=["a {}", "{}s"], names={"dog": "hound", 7: "a number"}, scale=5.0
    ).double()
    head.ask_tower()
    assert head.texts == (("a cat", "cats"), ("a sea lion", "sea lions"), ("a hound", "hounds"))
    tower = Lengths(4)
    rows = unit(torch.stack([unit(tower(one).double()).mean(0) for one in head.texts]))
    features = torch.randn(7, 6, dtype=torch.float64)
    centred, linear = head.project
    mean, var = features.mean(0), features.var(0, correction=0)
    projected = (features - mean) / (var + centred.eps).sqrt() @ linear.weight.T + linear.bias
    expected = 5 * unit(projected) @ rows.T
    torch.testing.assert_close(head(features), expected, rtol=0, atol=1e-6)  # rows are asked in single precision
    assert set(dict(head.named_parameters())) == {"rows", "log_scale", "project.1.weight", "project.1.bias"}


def test_names_of_classes_that_are_numbers_are_found_and_others_refused():
    head = head_of(("0", "1"), names={0: "zero", "1": "one"})
    assert head.texts == (("zero",), ("one",))
    check_names({"target": head, "source": head_of(names={"1": "one"})})
    with pytest.raises(GraftError, match=r"there is no class '2'\. The classes are 0, 1\."):
        check_names({"target": head_of(("0", "1"), names={2: "two"})})


def test_a_name_is_spelt_alike_in_any_company_and_capitals():
    tower = Characters(4, 5).double()
    alone, among = tower(["Cat"]), tower(["a longer name", "cat", "Öl"])
    torch.testing.assert_close(alone[0], among[1], rtol=0, atol=1e-12)
    assert not torch.equal(among[0], among[1])


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 1, 0, 0]])
def test_the_contrast_is_clips_and_shares_the_target_between_samples_of_a_class(labels):
    random = torch.Generator().manual_seed(0)
    samples, texts = (unit(torch.randn(4, 3, generator=random, dtype=torch.float64)) for _ in range(2))
    labels, losses = torch.tensor(labels), []
    for one, other in ((samples, texts), (texts, samples)):
        for place in range(4):
            scores = torch.stack([7.0 * one[place] @ vector for vector in other])
            own = [number for number in range(4) if labels[number] == labels[place]]
            losses.append(scores.exp().sum().log() - scores[own].mean())
    found = contrast_of_pairs(samples, texts, 7.0, labels)
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-12, atol=0)


def test_the_term_teaches_projection_tower_and_scale():
    backbone, head, term = lenet(channels=1, size=16), head_of(), CLIP()
    term.prepare(replace(toy.term_context(backbone), heads={"target": head}, target_head=head))
    features, labels = torch.randn(5, 6, requires_grad=True), torch.tensor([2, 0, 2, 1, 0])
    step = TrainStep({"target": DomainBatch(torch.zeros(5, 1), labels)}, {"target": features}, {}, 0.0)
    value = term(step)
    expected = contrast_of_pairs(head.embed(features), head.vectors()[labels], head.scale, labels)
    torch.testing.assert_close(value, expected)
    value.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())
    assert features.grad.abs().sum() > 0
    with pytest.raises(GraftError, match="Set head=class_names"):
        CLIP().check(toy.term_context(backbone))


def test_what_was_learned_on_other_names_goes_over_without_their_rows():
    learned, head = head_of(), head_of(OTHERS)
    with torch.no_grad():
        for parameter in learned.parameters():
            parameter.add_(1.0)
    described = Description.__new__(Description)
    object.__setattr__(described, "classes", [*ANIMALS])
    LearnedHead("run", described, learned.state_dict()).fill(head, OTHERS)
    torch.testing.assert_close(head.state_dict(), learned.state_dict())
    assert head(torch.randn(2, 6)).shape == (2, 2)
    fixed, other = head_of(tower=Lengths(4)), head_of(OTHERS, tower=Lengths(4))
    fixed.ask_tower()
    other.ask_tower()
    found = other.with_learned(fixed.state_dict())
    assert torch.equal(found["rows"], other.rows)
    assert torch.equal(found["project.1.weight"], fixed.project[1].weight)


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (
            ["strategy=zero_shot", "backbone.weights=imagenet", "term=[l2sp]", "averaging=ema", "optimizer.lr=auto"],
            ["nothing has taught it", "use term=[]", "use averaging=none", "use optimizer.lr=1e-3"],
        ),
        (
            ["strategy=zero_shot", "head=linear", "backbone.weights=source", "term=[clip]", "pretrain=clip"],
            ["its rows would be random", "`term=clip` with", "`pretrain.term.clip` with"],
        ),
        (["head=class_names", "head.grow=true", "head.weights=run"], ["names are enough for new classes"]),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(overrides, messages):
    with pytest.raises(GraftError) as error:
        check_composed(overrides)
    for message in messages:
        assert message in str(error.value)


def test_templates_without_a_place_for_the_name_and_numbers_are_refused():
    with pytest.raises(GraftError, match=r"has no \{\} in the place of the name"):
        head_of(templates=["a photo"])
    with pytest.raises(GraftError, match="numbers and no classes"):
        ClassNamesHead(HeadContext(6, 1, None), Characters(4, 5))
    with pytest.raises(GraftError, match="Use task=multiclass"):
        ClassNamesHead(HeadContext(6, 1, ("no", "yes")), Characters(4, 5))

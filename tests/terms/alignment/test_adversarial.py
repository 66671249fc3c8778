"""Adversarial terms against the papers' formulas, written out in double precision."""

import copy
import math

import pytest
import torch
import toy
from torch import nn

from graft.backbones.cnn import cnn
from graft.errors import GraftError
from graft.heads.bottleneck import BottleneckHead
from graft.inputs.base import DomainBatch
from graft.objectives.alpha import AlphaWeighted
from graft.terms.alignment.adda import ADDA
from graft.terms.alignment.cdan import CDAN, certainty_weights
from graft.terms.alignment.dann import DANN
from graft.terms.alignment.discriminator import domain_loss
from graft.terms.alignment.mdd import MDD
from graft.terms.alignment.reversal import ramp, reverse

from .steps import CLASSES, SIZE, context_of, features_of_sizes, head_of, step_on

PROGRESS = 0.2
STRENGTH = 2 / (1 + math.exp(-2.0)) - 1


class Features(nn.Module):
    """Stands for a backbone of which only the number of features counts."""

    feature_size = SIZE


def prepared(term, head=None):
    torch.manual_seed(4)
    term.prepare(context_of(Features(), head or head_of()))
    return term.double()


def check_adversarial(term, value, loss, x, strength=STRENGTH):
    """The term's own parameters get the gradient of `loss`, features `-strength` times it."""
    assert value.item() == pytest.approx(loss.item(), rel=1e-10)
    own, moved = [*term.parameters()], [*x.values()]
    ours, theirs = (torch.autograd.grad(one, own + moved) for one in (value, loss))
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(one, other if number < len(own) else -strength * other, rtol=1e-8, atol=1e-13)
    assert all(one.any() for one in ours[len(own) :])


def through(network, x):
    """A discriminator of two hidden layers, layer by layer."""
    first, second, last = (layer for layer in network if isinstance(layer, nn.Linear))
    hidden = (x @ first.weight.T + first.bias).clamp_min(0)
    hidden = (hidden @ second.weight.T + second.bias).clamp_min(0)
    return (hidden @ last.weight.T + last.bias)[:, 0]


def cross_entropy(probabilities, is_source):
    return -(probabilities if is_source else 1 - probabilities).log()


def test_the_ramp_is_the_papers():
    assert ramp(0.0) == 0
    assert ramp(PROGRESS) == pytest.approx(STRENGTH)
    assert ramp(1.0) == pytest.approx(0.99991, abs=1e-5)


def test_reversal_is_the_identity_whose_gradient_is_turned():
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.equal(reverse(x, 0.3), x)
    (gradient,) = torch.autograd.grad((reverse(x, 0.3) ** 3).sum(), x)
    torch.testing.assert_close(gradient, -0.3 * 3 * x.detach() ** 2)


def test_dann_is_the_papers_with_unequal_batches():
    x, term = features_of_sizes(), prepared(DANN(hidden=6))
    p = {domain: 1 / (1 + (-through(term.discriminator, one)).exp()) for domain, one in x.items()}
    loss = sum(cross_entropy(p[domain], domain == "source").sum() / len(p[domain]) / 2 for domain in p)
    check_adversarial(term, term(step_on(x, progress=PROGRESS)), loss, x)


def test_a_discriminator_at_its_optimum_has_a_loss_of_log_2_for_equal_distributions():
    logits = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    loss = domain_loss(logits[:2], logits[:4])
    assert loss.item() == pytest.approx(math.log(2))
    same = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    assert not torch.autograd.grad(domain_loss(same, same), same)[0].any()  # nothing is better
    swapped = (
        domain_loss(torch.tensor([-1.0]), torch.tensor([2.0])),
        domain_loss(torch.tensor([-2.0]), torch.tensor([1.0])),
    )
    assert swapped[0] == swapped[1]


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("randomised", [False, True])
def test_cdan_is_the_papers(entropy, randomised):
    x = features_of_sizes()
    term = prepared(CDAN(hidden=6, entropy=entropy, randomised=randomised, projection_size=5))
    step = step_on(x, progress=PROGRESS)
    loss = 0.0
    for domain, features in x.items():
        odds = step.logits[domain].detach().exp()
        g = odds / odds.sum(1, keepdim=True)
        if randomised:
            seen = torch.einsum("bd,dm,bk,km->bm", features, term.of_features, g, term.of_classes) / 5**0.5
        else:
            seen = torch.stack([torch.kron(one, f) for one, f in zip(g, features, strict=True)])
        p = 1 / (1 + (-through(term.discriminator, seen)).exp())
        w = 1 + (g * g.log()).sum(1).exp() if entropy else torch.ones_like(p)
        loss = loss + (w * cross_entropy(p, domain == "source")).sum() / w.sum() / 2
    check_adversarial(term, term(step), loss, x)


def test_weights_of_sure_predictions_have_mean_1_and_fall_with_entropy():
    logits = torch.tensor([[9.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    weights = certainty_weights(logits)
    assert weights.mean().item() == pytest.approx(1, rel=1e-12)
    assert weights[0] > weights[1] > weights[2]
    assert (weights[2] / weights[0]).item() == pytest.approx((1 + 1 / 3) / 2, abs=2e-3)


def test_mdd_is_the_papers():
    x, term = features_of_sizes(), prepared(MDD())
    step = step_on(x, progress=PROGRESS)
    p = {}
    for domain, features in x.items():
        odds = (features @ term.head.weight.T + term.head.bias).exp()
        p[domain] = (odds / odds.sum(1, keepdim=True))[range(len(odds)), step.logits[domain].max(1).indices]
    loss = 4 * -p["source"].log().mean() - (1 - p["target"]).log().mean()
    check_adversarial(term, term(step), loss, x, 0.1 * STRENGTH)


def test_mdd_stays_finite_where_the_classifiers_agree():
    x, term = features_of_sizes(), prepared(MDD())
    term.head.load_state_dict(head_of().state_dict())
    x = {domain: (1e3 * one).detach().requires_grad_() for domain, one in x.items()}
    value = term(step_on(x, progress=PROGRESS))
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, [*x.values()]))


def test_terms_take_a_bottlenecks_output():
    term = DANN(hidden=6)
    term.prepare(context_of(Features(), BottleneckHead(SIZE, CLASSES, width=3)))
    assert term.discriminator[0].in_features == 3


def images(seed):
    return torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_training_with_adda_takes_the_papers_steps():
    torch.manual_seed(0)
    module = toy.module_of(
        cnn(size=8, dropout=0.0),
        objective=AlphaWeighted(None),
        terms={"adda": ADDA(hidden=6)},
        optimizer=toy.optimizer(lr=0.05, weight_decay=0.0),
        bn="domain_specific",
    ).double()
    module.terms["adda"].prepare(context_of(module.backbone, module.head("target")))
    module.double()
    head = copy.deepcopy(module.head("target").state_dict())
    source_encoder = copy.deepcopy(module.backbone).eval()
    encoder, discriminator = copy.deepcopy([module.backbone, module.terms["adda"].discriminator])
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.05) for one in (discriminator, encoder)]
    for x, y in zip(images(1).split(4), images(2).split(4), strict=True):
        real, fake = source_encoder(x).detach(), encoder.train()(y)
        p, q = (torch.sigmoid(through(discriminator, one)) for one in (real, fake.detach()))
        losses = [-(p.log().mean() + (1 - q).log().mean()) / 2]
        optimizers[0].zero_grad()
        losses[0].backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        (-torch.sigmoid(through(discriminator, encoder(y))).log().mean()).backward()
        optimizers[1].step()
    batches = {
        d: toy.loader_of(DomainBatch(images(n), torch.arange(8) % 3), 4) for d, n in (("source", 1), ("target", 2))
    }
    toy.trainer_on_cpu(max_epochs=1, precision="64-true").fit(module, batches)
    for ours, theirs in ((module.backbone, encoder), (module.terms["adda"].discriminator, discriminator)):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(value, head[name]) for name, value in module.head("target").state_dict().items())


@pytest.mark.parametrize("term", [CDAN(), MDD()], ids=lambda term: type(term).__name__)
def test_a_head_for_each_domain_or_no_classes_are_refused(term):
    for changes in ({"num_classes": None}, {"heads": {"source": head_of(), "target": head_of()}}):
        with pytest.raises(GraftError, match=r"term\.\w+ compares predictions.*head\.sharing=shared"):
            term.check(context_of(Features(), head_of(), **changes))


def test_adda_refuses_random_weights_and_a_bottleneck():
    with pytest.raises(GraftError, match=r"term\.adda needs pretrained weights"):
        ADDA().prepare(context_of(Features(), head_of(), pretrained=False))
    with pytest.raises(GraftError, match=r"term\.adda.*head=linear"):
        ADDA().check(context_of(Features(), BottleneckHead(SIZE, CLASSES)))

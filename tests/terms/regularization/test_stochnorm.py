import copy
import math

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from graft.backbones.base import ImageBackbone, Stage
from graft.errors import GraftError
from graft.terms.regularization.stochnorm import StochNorm, make_stochastic
from graft.training.normalization import add_source_statistics, batchnorms, source_statistics


def norm_of(norm_class, channels=4, probability=0.5, **options):
    """A BatchNorm with statistics and parameters of a past, plain and stochastic."""
    generator = torch.Generator().manual_seed(0)
    plain = norm_class(channels, **options).double().train()
    with torch.no_grad():
        for value in (plain.running_mean, plain.weight, plain.bias):
            value.copy_(torch.randn(channels, generator=generator))
        plain.running_var.copy_(torch.rand(channels, generator=generator) + 0.5)
    holder = nn.Sequential(copy.deepcopy(plain))
    assert make_stochastic(holder, probability) == 1
    return plain, holder[0]


def normalised(x, s, mean, var, weight, bias, eps=1e-5):
    """The paper's formula for one channel's values, a list: s of the batch branch plus 1 - s of the moving one."""
    batch_mean = sum(x) / len(x)
    batch_var = sum((v - batch_mean) ** 2 for v in x) / len(x)
    branches = [[(v - m) / math.sqrt(q + eps) for v in x] for m, q in ((mean, var), (batch_mean, batch_var))]
    return [weight * ((1 - s) * moving + s * batch) + bias for moving, batch in zip(*branches, strict=True)]


@pytest.mark.parametrize(
    ("norm_class", "shape"),
    [
        (nn.BatchNorm1d, (5, 4)),
        (nn.BatchNorm1d, (3, 4, 2)),
        (nn.BatchNorm2d, (3, 4, 2, 2)),
        (nn.BatchNorm3d, (2, 4, 2, 2, 1)),
    ],
)
def test_every_channel_is_normalised_by_the_branch_that_was_drawn(norm_class, shape):
    plain, norm = norm_of(norm_class)
    x = torch.randn(shape, dtype=torch.float64)
    torch.manual_seed(5)
    y = norm(x)
    torch.manual_seed(5)
    drawn = (torch.rand(4) < 0.5).tolist()
    assert set(drawn) == {True, False}
    for c in range(4):
        values = normalised(
            x[:, c].flatten().tolist(),
            float(drawn[c]),
            plain.running_mean[c].item(),
            plain.running_var[c].item(),
            plain.weight[c].item(),
            plain.bias[c].item(),
        )
        torch.testing.assert_close(y[:, c].flatten().tolist(), values, rtol=1e-10, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences():
    _, norm = norm_of(nn.BatchNorm2d)

    def run(x, weight, bias):
        torch.manual_seed(5)
        return torch.func.functional_call(copy.deepcopy(norm), {"weight": weight, "bias": bias}, (x,))

    x = torch.randn(3, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, norm.weight, norm.bias))


def test_at_one_it_is_batchnorm_and_at_nought_it_is_batchnorm_in_eval_mode():
    x = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    for probability, training in ((1.0, True), (0.0, False)):
        plain, norm = norm_of(nn.BatchNorm2d, probability=probability)
        torch.testing.assert_close(norm(x), plain.train(training)(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_moving_statistics_follow_the_batch_as_in_any_batchnorm(probability):
    plain, norm = norm_of(nn.BatchNorm2d, probability=probability)
    x = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    plain(x), norm(x)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[name], value, rtol=0, atol=0)


def test_in_eval_mode_it_is_batchnorm_and_draws_nothing():
    plain, norm = norm_of(nn.BatchNorm2d)
    x = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    before = torch.get_rng_state()
    torch.testing.assert_close(norm.eval()(x), plain.eval()(x), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_activation_inside_timms_batchnorm_stays():
    x = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    for probability, training in ((1.0, True), (0.0, False)):
        plain, norm = norm_of(BatchNormAct2d, probability=probability, act_layer=nn.ReLU6)
        y = norm(x.clone())
        assert y.min() == 0
        torch.testing.assert_close(y, plain.train(training)(x.clone()), rtol=1e-12, atol=1e-12)


def test_the_backbone_keeps_its_parameters_names_and_stages(make_setup):
    context = make_setup()
    backbone = context.backbone
    before = dict(backbone.named_parameters())
    names, norms = list(backbone.state_dict()), batchnorms(backbone)
    term = StochNorm()
    term.prepare(context)
    assert list(backbone.state_dict()) == names
    assert all(before[name] is parameter for name, parameter in backbone.named_parameters())
    assert batchnorms(backbone) == norms
    assert len(norms) == 2
    assert norms[0] in backbone.stage_modules("stem")
    assert term.state_dict() == {}
    assert term(None) is None


def test_a_frozen_stage_is_not_stochastic(make_setup):
    context = make_setup()
    StochNorm().prepare(context)
    inputs = torch.randn(8, 1, 8, 8)
    context.backbone.train()
    assert not torch.equal(context.backbone(inputs), context.backbone(inputs))
    for module in context.backbone.modules():
        module.eval()
    assert torch.equal(context.backbone(inputs), context.backbone(inputs))


def test_domains_with_statistics_of_their_own_each_use_theirs(make_setup):
    context = make_setup()
    StochNorm(probability=0.0).prepare(context)
    add_source_statistics(context.backbone)
    norm = batchnorms(context.backbone)[0].train()
    norm.source_running_mean.fill_(2.0)
    x = torch.randn(8, 4, 3, 3)
    difference = norm(x).mean()
    with source_statistics(context.backbone):
        difference = difference - norm(x).mean()
    assert difference > 1


def test_refuses_random_weights_a_backbone_without_batchnorm_and_what_is_no_probability(make_setup):
    with pytest.raises(GraftError, match=r"term.stochnorm needs pretrained weights"):
        StochNorm().prepare(make_setup(pretrained=False))
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    plain = ImageBackbone("plain", network, size=8, channels=1, feature_size=6, stages=[Stage("all", ("network",))])
    with pytest.raises(GraftError, match=r"but plain has none.*backbone=resnet18"):
        StochNorm().prepare(make_setup(backbone=plain))
    with pytest.raises(GraftError, match=r"cannot replace a SyncBatchNorm"):
        make_stochastic(nn.Sequential(nn.SyncBatchNorm(3)), 0.5)
    with pytest.raises(GraftError, match=r"probability=1.5 must be in \[0, 1\]"):
        StochNorm(probability=1.5)

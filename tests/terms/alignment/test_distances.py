"""Distances of distributions and of spectra against the papers' formulas, written out in double precision."""

import math

import pytest
import torch
import toy
from torch import nn

from graft.errors import GraftError
from graft.terms.alignment.adabn import AdaBN
from graft.terms.alignment.afn import AFN
from graft.terms.alignment.bsp import BSP
from graft.terms.alignment.coral import CORAL
from graft.terms.alignment.dan import DAN
from graft.terms.alignment.jan import JAN
from graft.terms.alignment.mcc import MCC, class_confusion
from graft.terms.alignment.mmd import gaussians, multi_kernel, squared_distances, unbiased

from .steps import CLASSES, SIZE, check_same, context_of, features_of_sizes, step_on


def kernel(x, y, spread):
    return sum(math.e ** (-((x - y) ** 2).sum() / (2 * scale * spread)) for scale in (1 / 8, 1 / 4, 1 / 2, 1, 2))


def spread_of(pairs):
    return sum(((x - y) ** 2).sum().item() for x, y in pairs) / len(pairs)


def distinct(samples):
    return [(x, y) for i, x in enumerate(samples) for j, y in enumerate(samples) if i != j]


def discrepancy(source, target, k):
    """Unbiased MMD from a kernel of two sample numbers, by single pairs; numbers go through both domains."""
    s, t = range(len(source)), range(len(source), len(source) + len(target))
    mean = [sum(k(i, j) for i, j in distinct(list(one))) / len(one) / (len(one) - 1) for one in (s, t)]
    return sum(mean) - 2 * sum(k(i, j) for i in s for j in t) / len(s) / len(t)


def test_coral_is_the_papers_with_unequal_batches():
    x = features_of_sizes()
    covariances = []
    for one in x.values():  # the paper's formula (2): (D'D - (1'D)'(1'D) / n) / (n - 1)
        ones = torch.ones(1, len(one), dtype=torch.float64)
        covariances.append((one.T @ one - (ones @ one).T @ (ones @ one) / len(one)) / (len(one) - 1))
    expected = ((covariances[0] - covariances[1]) ** 2).sum() / (4 * SIZE**2)
    check_same(CORAL()(step_on(x)), expected, x)


def test_coral_sees_covariances_alone_and_is_symmetric():
    x = features_of_sizes(5, 5)
    same = {"source": x["source"], "target": x["source"] + 3}
    assert CORAL()(step_on(same)).item() == pytest.approx(0, abs=1e-25)
    swapped = {"source": x["target"], "target": x["source"]}
    assert CORAL()(step_on(x)).item() == pytest.approx(CORAL()(step_on(swapped)).item(), rel=1e-12)


def test_dan_is_the_papers_with_unequal_batches():
    x = features_of_sizes()
    both = [*x["source"], *x["target"]]
    spread = spread_of(distinct(both))
    expected = discrepancy(x["source"], x["target"], lambda i, j: kernel(both[i], both[j], spread))
    check_same(DAN()(step_on(x)), expected, x)


def test_dan_in_linear_time_is_the_papers():
    x = features_of_sizes(6, 6)
    quads = [(*x["source"][i : i + 2], *x["target"][i : i + 2]) for i in (0, 2, 4)]
    spread = spread_of([pair for a, b, c, d in quads for pair in ((a, b), (c, d), (a, d), (b, c))])
    values = [
        kernel(a, b, spread) + kernel(c, d, spread) - kernel(a, d, spread) - kernel(b, c, spread)
        for a, b, c, d in quads
    ]
    check_same(DAN(linear_time=True)(step_on(x)), sum(values) / 3, x)
    longer = {"source": x["source"], "target": torch.cat([x["target"], x["target"][:1]])}
    assert DAN(linear_time=True)(step_on(longer)) == DAN(linear_time=True)(step_on(x))


def test_the_discrepancy_of_equal_batches_is_0_biased_and_negative_unbiased():
    x = features_of_sizes(5, 5)["source"]
    k = multi_kernel(squared_distances(torch.cat([x, x])))
    assert (k[:5, :5].mean() + k[5:, 5:].mean() - 2 * k[:5, 5:].mean()).item() == pytest.approx(0, abs=1e-12)
    assert DAN()(step_on({"source": x, "target": x})) < -0.01
    constant = torch.ones_like(x)
    assert DAN()(step_on({"source": constant, "target": constant})).isfinite()


def test_the_discrepancy_is_symmetric_and_0_in_expectation_for_equal_distributions():
    x = features_of_sizes()
    swapped = {"source": x["target"], "target": x["source"]}
    assert DAN()(step_on(x)).item() == pytest.approx(DAN()(step_on(swapped)).item(), rel=1e-10)
    draws = torch.randn(400, 2, 8, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = torch.stack([DAN()(step_on(dict(zip(("source", "target"), pair, strict=True)))) for pair in draws])
    assert values.mean().abs() < 3 * values.std() / 20
    assert values.min() < 0 < values.max()


def test_jan_multiplies_the_kernels_of_features_and_probabilities():
    x = features_of_sizes()
    step = step_on(x)
    both = [*x["source"], *x["target"]]
    odds = [row.exp() for domain in x for row in step.logits[domain]]
    p = [row / row.sum() for row in odds]
    spread = spread_of(distinct(both))

    def k(i, j):
        return kernel(both[i], both[j], spread) * math.e ** (-((p[i] - p[j]) ** 2).sum() / (2 * 0.92**2))

    check_same(JAN()(step), discrepancy(x["source"], x["target"], k), x)


def test_mcc_is_the_papers():
    x = features_of_sizes()
    logits = step_on(x).logits["target"]
    odds = (logits / 2.5).exp()
    p = odds / odds.sum(1, keepdim=True)
    weights = [1 + math.exp(sum(v * math.log(v) for v in row.tolist())) for row in p]
    weights = [len(p) * w / sum(weights) for w in weights]
    confusion = [
        [sum(w * row[j] * row[k] for w, row in zip(weights, p, strict=True)) for k in range(CLASSES)]
        for j in range(CLASSES)
    ]
    off = [confusion[j][k] / sum(confusion[j]) for j in range(CLASSES) for k in range(CLASSES) if j != k]
    check_same(MCC()(step_on(x)), sum(off) / CLASSES, {"target": x["target"]})


def test_mcc_is_0_for_sure_predictions_and_greatest_for_unsure_ones():
    sure = 1e3 * torch.eye(CLASSES, dtype=torch.float64)
    assert class_confusion(sure, 2.5).item() == pytest.approx(0, abs=1e-12)
    assert class_confusion(0 * sure, 2.5).item() == pytest.approx((CLASSES - 1) / CLASSES)


def test_afn_lets_every_length_grow_by_the_same():
    x = features_of_sizes()
    value = AFN(growth=0.5)(step_on(x))
    assert value.item() == pytest.approx(0.25)
    for one, gradient in zip(x.values(), torch.autograd.grad(value, [*x.values()]), strict=True):
        lengths = (one**2).sum(1, keepdim=True) ** 0.5  # d/df of (|f| - r)^2 / n, r = |f| + growth
        torch.testing.assert_close(gradient, 2 * -0.5 * (one / lengths).detach() / 12)


def test_bsp_is_the_largest_eigenvalue_of_each_domains_second_moments():
    x = features_of_sizes()
    expected = sum(torch.linalg.eigvalsh(one.T @ one)[-1] for one in x.values())
    check_same(BSP()(step_on(x)), expected, x)


@pytest.mark.parametrize("term", [CORAL(), BSP()], ids=lambda term: type(term).__name__)
def test_gradients_are_those_of_finite_differences(term):
    def value(source, target):
        return term(step_on({"source": source, "target": target}))

    assert torch.autograd.gradcheck(value, [*features_of_sizes(3, 4).values()])


def test_the_gradient_of_the_discrepancy_is_that_of_finite_differences_where_the_spread_is_fixed():
    spread = torch.tensor(2.0, dtype=torch.float64)

    def value(source, target):
        return unbiased(gaussians(squared_distances(torch.cat([source, target])), spread), len(source))

    assert torch.autograd.gradcheck(value, [*features_of_sizes(3, 4).values()])


@pytest.mark.parametrize("term", [CORAL(), DAN(), JAN()], ids=lambda term: type(term).__name__)
def test_batches_of_one_sample_are_refused(term):
    with pytest.raises(GraftError, match=r"term\.\w+ compares.*data\.source_batch_size"):
        term(step_on(features_of_sizes(1, 5)))


def test_adabn_gives_the_target_statistics_of_its_own(tiny_backbone):
    module = toy.module_of(tiny_backbone(), terms={"adabn": AdaBN()}, bn="domain_specific")
    module.terms["adabn"].check(context_of(module.backbone, module.head("target")))
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "source": torch.randn(8, 1, 8, 8, generator=generator),
        "target": torch.randn(8, 1, 8, 8, generator=generator) * 3 + 2,
    }
    module.train()
    batch = toy.batch_of_tensors({domain: (x, None) for domain, x in inputs.items()})
    for _ in range(200):
        module.domain_features(batch)
    norm = module.backbone.network.stem[1]
    for statistics, x in ((norm.running_mean, inputs["target"]), (norm.source_running_mean, inputs["source"])):
        torch.testing.assert_close(statistics, module.backbone.network.stem[0](x).mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    module.backbone.network = nn.Sequential()
    with pytest.raises(GraftError, match=r"term\.adabn.*has none"):
        AdaBN().check(context_of(module.backbone, module.head("target")))

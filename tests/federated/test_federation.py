"""The parts of a federation against formulas in numpy: who holds what, means, proximal gradients, mixtures, batches."""

import numpy as np
import pytest
import torch
from lanes import one_in
from test_config import problems
from torch import nn

from graft.data.sampling import TrainBatches
from graft.federated import messages, mixtures
from graft.federated.batches import ClientBatches, OwnersBatches
from graft.federated.clients import NOBODY
from graft.federated.fedavg import FedAvg
from graft.federated.fedprox import FedProx
from graft.federated.partition import by_value, dirichlet, dirichlet_by_class, iid, in_proportion
from graft.federated.plan import Plan, Visit
from graft.federated.results import spread

LABELS = np.repeat(np.arange(10), 100)


def random(seed=0):
    return np.random.default_rng(seed)


def counts(parts, labels=LABELS):
    return np.stack([np.bincount(labels[part.numpy()], minlength=10) for part in parts])


def whole(parts, samples=1000):
    return torch.cat(list(parts)).sort().values.tolist() == list(range(samples))


def test_every_sample_has_one_client_by_every_rule():
    assert whole(iid(1000, 7, random()))
    for beta in (0.05, 1, 1e6):
        assert whole(dirichlet(LABELS, 7, beta, random()))
        assert whole(dirichlet_by_class(LABELS, 7, max(beta, 0.5), random()))
    names, parts = by_value(["b", "a", "b", 3])
    assert (names, [part.tolist() for part in parts]) == (["3", "a", "b"], [[3], [1], [0, 2]])


def test_a_dirichlet_gives_sizes_alike_and_fewer_classes_the_smaller_beta_is():
    found = {beta: counts(dirichlet(LABELS, 10, beta, random())) for beta in (0.1, 10, 1e6)}
    assert all((one.sum(1) == 100).all() for one in found.values())
    classes = [(one > 0).sum(1).mean() for one in found.values()]
    assert classes[0] < 4 < 9 < classes[2]
    assert np.abs(found[1e6][:8] - 10).max() < 12  # near the shares of all; the last get what is left
    sizes = counts(dirichlet_by_class(LABELS, 10, 0.5, random())).sum(1)
    assert sizes.max() > 1.5 * sizes.min()


def test_the_shares_of_a_dirichlet_have_the_variance_of_the_paper():
    # Of Dir(beta p) with p = 1/10 each share has mean p and variance p (1 - p) / (beta + 1); first client: none used up
    shares = [counts(dirichlet(LABELS, 50, 4.0, random(seed)))[0, 0] / 20 for seed in range(150)]
    within = 0.1 * 0.9 / 5 + (0.1 - 0.1**2 - 0.1 * 0.9 / 5) / 20  # and the draw of 20 samples by these shares
    assert np.mean(shares) == pytest.approx(0.1, abs=0.02)
    assert np.var(shares) == pytest.approx(within, rel=0.4)


def test_held_out_samples_follow_the_clients_shares():
    shares = np.zeros((3, 10))
    shares[0, :5], shares[1, 5:9], shares[2] = 30, 10, 10
    owners = in_proportion(LABELS, shares, random()).numpy()
    of_first = np.bincount(owners[LABELS == 0], minlength=3)
    assert of_first.tolist() == [75, 0, 25]
    assert np.bincount(owners[LABELS == 6], minlength=3).tolist() == [0, 50, 50]
    assert np.bincount(owners[LABELS == 9], minlength=3).tolist() == [0, 0, 100]
    even = in_proportion(np.zeros(10, dtype=int), np.zeros((3, 1)), random())  # a class that nobody has
    assert sorted(even.bincount().tolist()) == [3, 3, 4]


def test_the_mean_weighs_by_samples_and_momentum_is_that_of_numpy():
    torch.manual_seed(0)
    answers = {client: {"w": torch.randn(3, 2), "running_mean": torch.randn(2)} for client in (0, 2)}
    found = messages.average(answers, {0: 30.0, 1: 5.0, 2: 10.0})
    expected = (30 * answers[0]["w"].double().numpy() + 10 * answers[2]["w"].double().numpy()) / 40
    np.testing.assert_allclose(found["w"].numpy(), expected, rtol=1e-6)
    assert found["w"].dtype == torch.float32
    method, start, velocity = FedAvg(server_momentum=0.5), {"w": torch.ones(3, 2), "running_mean": torch.ones(2)}, {}
    old, speed = np.ones((3, 2)), np.zeros((3, 2))
    for _ in range(3):
        start = method.aggregate(start, answers, {0: 30.0, 2: 10.0}, velocity)
        speed = 0.5 * speed + old - expected
        old = old - speed
    np.testing.assert_allclose(start["w"].numpy(), old, rtol=1e-5)
    torch.testing.assert_close(start["running_mean"], found["running_mean"])  # of statistics no momentum


def test_the_proximal_gradient_is_that_of_its_closed_form():
    torch.manual_seed(0)
    layer = nn.Linear(4, 2).double()
    start = {name: torch.randn_like(parameter) for name, parameter in layer.named_parameters()}
    inputs = torch.randn(5, 4, dtype=torch.float64)
    layer(inputs).square().sum().backward()
    FedProx(mu=0.3).correct_gradients(dict(layer.named_parameters()), start)
    given = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    distance = sum((parameter - start[name]).square().sum() for name, parameter in layer.named_parameters())
    (layer(inputs).square().sum() + 0.3 / 2 * distance).backward()
    for found, expected in zip(given, layer.parameters(), strict=True):
        torch.testing.assert_close(found, expected.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("covariance", ["spherical", "diag", "full"])
def test_a_mixture_of_one_has_the_moments_of_numpy_and_its_draws_too(covariance):
    features = random().normal(size=(400, 3)) @ random(1).normal(size=(3, 3)) + 5
    mixture = mixtures.fit(features.astype(np.float32), 1, covariance, 1e-6, 0)
    full = np.cov(features.T, bias=True)
    expected = {"full": full, "diag": full.diagonal(), "spherical": full.diagonal().mean()}[covariance]
    np.testing.assert_allclose(mixture.means[0], features.mean(0), rtol=1e-5)
    np.testing.assert_allclose(mixture.covariances[0], expected, rtol=1e-3, atol=1e-4)
    drawn = mixture.draw(40000, random())
    np.testing.assert_allclose(drawn.mean(0), features.mean(0), atol=0.05)
    variances = np.broadcast_to(np.diag(expected) if covariance == "full" else expected, 3)
    np.testing.assert_allclose(drawn.var(0), variances, rtol=0.05)
    numbers = {"spherical": 1 + 3 + 1, "diag": 1 + 3 + 3, "full": 1 + 3 + 6}[covariance]  # half of a symmetric matrix
    assert mixture.bytes == 4 * numbers + 8


def test_a_mixture_of_several_finds_them_and_few_samples_make_few_gaussians():
    features = np.concatenate([random(seed).normal(4 * seed, 0.1, size=(50, 2)) for seed in range(3)])
    mixture = mixtures.fit(features.astype(np.float32), 3, "diag", 1e-6, 0)
    np.testing.assert_allclose(sorted(mixture.means[:, 0]), [0, 4, 8], atol=0.1)
    np.testing.assert_allclose(mixture.weights, 1 / 3, atol=1e-3)
    single = mixtures.fit(features[:1].astype(np.float32), 10, "full", 1e-4, 0)
    np.testing.assert_allclose(single.covariances[0], 1e-4 * np.eye(2), rtol=1e-6)
    assert np.isfinite(single.draw(5, random())).all()
    assert not mixtures.fit(np.full((3, 2), np.nan, np.float32), 2, "diag", 1e-6, 0).is_finite


def test_a_round_is_a_function_of_seed_and_number_and_somebody_always_answers():
    plan, again = (Plan([3] * 10, 0.5, 0.4, 7) for _ in range(2))
    assert [plan.round(n) for n in range(20)] == [again.round(n) for n in range(20)][::1]
    assert plan.round(3) != Plan([3] * 10, 0.5, 0.4, 8).round(3)
    rounds = [plan.round(number) for number in range(400)]
    asked = sum(len(one.asked) for one in rounds)
    assert all(one.visits and len(one.asked) == len(one.dropped) + len(one.visits) for one in rounds)
    assert sum(len(one.dropped) for one in rounds) / asked == pytest.approx(0.4, abs=0.05)
    one = Plan([2, 3], 1.0, 0.0, 0).round(0)
    assert [one.at(step) for step in range(5)] == [
        (visit, step) for visit in (Visit(0, 2), Visit(1, 3)) for step in range(visit.steps)
    ]


def test_clients_draw_their_own_samples_each_once_an_epoch_and_the_first_as_in_plain_training():
    shares = [torch.arange(0, 20, 2), torch.arange(1, 20, 2)]
    plan = Plan([6, 6], 1.0, 0.0, 0)  # two passes of three batches
    batches = ClientBatches(shares, 4, (5, "target"), plan, None, 1)
    drawn = [indices for _, indices in batches]
    assert len(batches) == len(drawn) == 12
    assert torch.cat(drawn[:3]).sort().values.tolist() == shares[0].tolist()
    assert torch.cat(drawn[9:]).sort().values.tolist() == shares[1].tolist()
    plain = TrainBatches(20, 4, (5, "target"))
    alone = ClientBatches([torch.arange(20)], 4, (5, "target"), Plan([5], 1.0, 0.0, 0), None, 3)
    plain.set_epoch(3)
    assert [(seed, one.tolist()) for seed, one in plain] == [(seed, one.tolist()) for seed, one in alone]
    owners = torch.tensor([1, 0, NOBODY, 1, 1, 0])
    held_out = [indices.tolist() for _, indices in OwnersBatches(owners, 2)]
    assert held_out == [[2], [1, 5], [0, 3], [4]]


def test_fairness_of_scores_and_of_errors():
    found = spread([0.9, 0.5, 0.7, 0.8] + [0.9] * 16, higher_is_better=True)
    assert (found["worst"], found["worst_decile"]) == (0.5, pytest.approx(0.6))
    assert found["std"] == pytest.approx(np.std([0.9, 0.5, 0.7, 0.8] + [0.9] * 16))
    assert spread([1.0, 3.0], higher_is_better=False)["worst"] == 3.0
    assert spread([], higher_is_better=True) == {}


FED = "federated=fedavg"


@pytest.mark.parametrize(
    ("overrides", "said"),
    one_in(
        7,
        [
            ([FED, "federated.local_steps=3"], "`federated.local_epochs=1` with `federated.local_steps=3`: give one"),
            (
                [FED, "federated.clients=null"],
                "`federated.partition=iid` with `federated.clients=null`: give",
            ),
            (
                [FED, "federated.partition=column", "federated.clients=null"],
                "`federated.column=null`: a column",
            ),
            ([FED, "federated.partition=sources"], "with `federated.clients=10`: values say how many"),
            ([FED, "objective.alpha=0.5"], "`federated=fedavg` with `objective.alpha=0.5`: clients have no source"),
            ([FED, "averaging=ema"], "`federated=fedavg` with `averaging=ema`"),
            ([FED, "compress=quantize"], "`federated=fedavg` with `compress=quantize`"),
            ([FED, "trainer=ddp_cpu"], "`federated=fedavg` with several processes"),
            ([FED, "term=[mcc]", "data.target_setting=semi"], "`federated=fedavg` with `data.target_setting=semi`"),
            ([FED, "training.accumulate_batches=2"], "with `training.accumulate_batches=2`: gradients of two clients"),
            ([FED, "selection=budget"], "`federated=fedavg` with `selection=budget`: it divides all labels in folds"),
            ([FED, "save.neighbours=true"], "with `save.neighbours=true`: the model would hold features"),
            ([FED, "tune=lr"], "`federated=fedavg` with `tune=lr`"),
            ([FED, "strategy=probe"], "`federated=fedavg` with `strategy=probe`: it fits all features at once"),
            (["federated=fedpft"], "`federated=fedpft` with `strategy=full`: it sends frozen features"),
            (
                ["federated=fedpft", "strategy=frozen", "data.augment=light"],
                "with `data.augment=light`: features",
            ),
            ([FED, "federated.beta=0"], "`federated.beta=0`: must be"),
            ([FED, "federated.drop_out=1"], "`federated.drop_out=1`: must be"),
            (["federated=fedprox", "federated.mu=-1"], "`federated.mu=-1`: must be"),
        ],
    ),
)
def test_what_cannot_go_together_is_refused_by_name(overrides, said):
    found = problems("backbone.weights=source", *overrides)
    assert any(said in one for one in found), found


def test_what_goes_together_passes():
    assert problems("backbone.weights=source", FED, "strategy=lp_ft", "term=[l2sp]", "data.labels_per_class=20") == []
    assert problems("backbone.weights=source", "federated=fedpft", "strategy=frozen", "federated.covariance=full") == []

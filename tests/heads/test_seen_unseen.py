"""Seen and unseen classes together: accuracies, constants and areas against loops over samples, and a whole run."""

import itertools

import pytest
import torch
from small_run import train_in

import graft
from graft.probe.seen_unseen import Margins, harmonic_mean


def by_hand(scores, labels, seen, constant):
    """Means over classes of what is right, sample by sample."""
    right = {}
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        calibrated = [one - constant * known for one, known in zip(row, seen.tolist(), strict=True)]
        right.setdefault(label, []).append(max(range(len(row)), key=calibrated.__getitem__) == label)
    means = {label: sum(one) / len(one) for label, one in right.items()}
    kinds = [[value for label, value in means.items() if bool(seen[label]) is kind] for kind in (True, False)]
    return tuple(sum(one) / len(one) for one in kinds)


@pytest.fixture
def samples():
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (40,), generator=random)
    scores = torch.randn(40, 6, generator=random, dtype=torch.float64) + torch.eye(6, dtype=torch.float64)[labels]
    return scores, labels, torch.tensor([True, False, True, True, False, False])


@pytest.mark.parametrize("constant", [0.0, 0.4, -0.7, 10.0])
def test_accuracies_are_means_over_the_classes_that_there_are(samples, constant):
    found = Margins.of(*samples).accuracies(constant)
    assert found == pytest.approx(by_hand(*samples, constant), abs=1e-12)


def test_the_best_constant_and_the_area_are_those_of_all_constants(samples):
    margins = Margins.of(*samples)
    values = margins.margin.sort().values
    between = [*((values[1:] + values[:-1]) / 2).tolist(), -99.0, 99.0]
    grid = [by_hand(*samples, constant) for constant in between]
    best = harmonic_mean(*margins.accuracies(margins.best_constant()))
    assert best == pytest.approx(max(harmonic_mean(*one) for one in grid), abs=1e-12)
    assert best > harmonic_mean(*margins.accuracies(0.0))
    grid.sort(key=lambda one: (one[0], -one[1]))
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(grid))
    assert margins.area() == pytest.approx(area, abs=1e-9)
    assert harmonic_mean(0.0, 0.5) == 0.0


@pytest.mark.slow
def test_a_run_pretrained_on_pairs_knows_what_it_has_not_seen_by_name(tmp_path):
    results = train_in(
        tmp_path,
        *("data/domain@data.source=glyphs", "data.source_classes=[0,1,2,3,4,5,6]", "data/domain@data.target=digits"),
        *("data.target_classes=[6,7,8,9]", "backbone=lenet", "backbone.weights=source", "pretrain=clip"),
        *("pretrain.epochs=1", "head=class_names", "strategy=zero_shot", "trainer=cpu", "logger=[]"),
    )
    found = results["seen_unseen"]
    assert found["classes"] == {"seen": 7, "unseen": 3}
    assert results["metrics"]["forgetting"] == 0
    own = [weights for weights in tmp_path.glob("computed/*/weights.pt")]
    learned = torch.load(own[0], weights_only=True)["head"]
    kept = graft.load_run(tmp_path / "run").head.state_dict()
    torch.testing.assert_close(kept, learned, rtol=0, atol=0)  # statistics of BatchNorm too
    assert results["metrics"]["pretrain/test/source/acc"] > 0.3
    assert results["labels"] == {"training": 0, "choosing": 0}
    plain, calibrated = found["plain"], found["calibrated"]
    assert plain["seen"] > 0.3
    assert plain["harmonic_mean"] == pytest.approx(harmonic_mean(plain["seen"], plain["unseen"]))
    assert calibrated["unseen"] >= plain["unseen"] or calibrated["seen"] >= plain["seen"]
    assert 0 < found["area"] < 1

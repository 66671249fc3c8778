"""Drawn data sets, each cut into folds or splits, on whose training parts heads of two representations are trained.

Unlike the pool's seeds the parts of a data set overlap, so that nothing can be stored: every drawn set is trained. The
mean over all drawn sets is what an interval should hold.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graft.data.splits import others, stratified_folds, stratified_split
from tests.proof.calibration_pool import CLASSES, digits, features_of, heads, representation

Parts = list[tuple[Tensor, Tensor]]  # training and test places of each fold or split

FOLDS, REPEATS, SPLITS = 5, 3, 5
TEST_FRACTION = 0.15  # of a split
RATE = 0.03
RUNS = 450  # trained together


@dataclass(frozen=True)
class Population:
    """Samples that data sets are drawn from, as two representations see them."""

    labels: Tensor  # (N,)
    weak: Tensor  # (N, D)
    strong: Tensor


@functools.cache
def population(samples: int = 24_000, sources: tuple[int, int] = (400, 2000)) -> Population:
    """Rendered digits in representations that were trained on fewer and on more others."""
    images, labels = digits(samples, "folds")
    weak, strong = (features_of(representation(of), images) for of in sources)
    return Population(labels, weak, strong)


def folds(labels: Tensor, seed: int, repeats: int = 1) -> Parts:
    """Stratified folds of each repeat."""
    tests = [test for repeat in range(repeats) for test in stratified_folds(labels, FOLDS, REPEATS * seed + repeat)]
    return [(others(len(labels), test), test) for test in tests]


def splits(labels: Tensor, seed: int) -> Parts:
    """Stratified random splits."""
    found = [stratified_split(labels, {"test": TEST_FRACTION}, SPLITS * seed + number) for number in range(SPLITS)]
    return [(one["train"], one["test"]) for one in found]


EVALUATIONS: dict[str, Callable[[Tensor, int], Parts]] = {
    f"{FOLDS} folds": folds,
    f"{FOLDS} folds, {REPEATS} times": functools.partial(folds, repeats=REPEATS),
    f"{SPLITS} splits": splits,
}


@dataclass(frozen=True)
class Cut:
    """Differences of accuracy `(sets, parts)` of drawn data sets, and a part's test samples over its others."""

    gain: np.ndarray  # of the strong representation over the weak one
    same: np.ndarray  # of the strong one over itself with other weights and batches
    test_over_rest: float


def cut(found: Population, evaluation: str, samples: int, sets: int, random: np.random.Generator) -> Cut:
    """That many data sets of some samples, each cut as `evaluation` does."""
    gains, same, ratio = [], [], 0.0
    for train, test in batches(found.labels, evaluation, samples, sets, random):
        seed = int(random.integers(2**31))
        strong = accuracies(found.strong, found.labels, train, test, seed)
        gains.append(strong - accuracies(found.weak, found.labels, train, test, seed))
        same.append(strong - accuracies(found.strong, found.labels, train, test, seed + 1))
        ratio = test.shape[1] / train.shape[1]
    return Cut(*(np.concatenate(one).reshape(sets, -1) for one in (gains, same)), ratio)


def batches(
    labels: Tensor, evaluation: str, samples: int, sets: int, random: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Training and test places `(runs, n)` in the population of about RUNS parts, those of one set together."""
    train: list[Tensor] = []
    test: list[Tensor] = []
    for number in range(sets):
        drawn = torch.from_numpy(random.choice(len(labels), samples, replace=False))
        for mine, other in EVALUATIONS[evaluation](labels[drawn], number):
            train.append(drawn[mine])
            test.append(drawn[other])
        if len(train) >= RUNS or number == sets - 1:
            yield torch.stack(train), torch.stack(test)
            train, test = [], []


def accuracies(features: Tensor, labels: Tensor, train: Tensor, test: Tensor, seed: int) -> np.ndarray:
    """Accuracy `(runs,)` on each part's test places of a head that is trained on its others."""
    random = torch.Generator().manual_seed(seed)
    weights, bias = heads(features, train, labels, RATE, F.cross_entropy, CLASSES, random)
    right = torch.baddbmm(bias, features[test], weights).argmax(-1) == labels[test]
    return right.double().mean(1).numpy()

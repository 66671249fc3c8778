"""Stored runs whose truth is known: test predictions of many seeds on a test set as large as a population.

A run is a linear head on fixed features of rendered digits, trained on a few labels that its seed draws, as a frozen
run with `data.labels_per_class` is. All runs of an arm are trained together, which makes hundreds of seeds affordable.
The mean over all seeds and all test samples is what an interval should hold.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.data.sources.glyphs import render

Loss = Callable[[Tensor, Tensor], Tensor]

CLASSES = 10
LABELS_PER_CLASS = 5
STEPS = 60
BATCH = 20
RATES = (0.003, 0.01, 0.03, 0.1)
SMOOTH_RATE = RATES[
    1
]  # of the arms whose scores and numbers are kept too, for AUROC and R2: they take 16 times the room


@dataclass(frozen=True)
class Size:
    """How many of what the pool holds."""

    seeds: int = 500
    splits: int = 2
    train: int = 4000  # from which each seed draws its labels
    test: int = 20000
    sources: tuple[int, ...] = (0, 100, 400, 2000)  # samples that a representation was trained on; 0 is a random one

    @property
    def name(self) -> str:
        """For its file."""
        return "x".join(map(str, (self.seeds, self.splits, self.train, self.test, *self.sources)))


@dataclass(frozen=True)
class Pool:
    """What every seed of every arm says of every test sample."""

    labels: np.ndarray  # (splits, N) digits
    correct: Mapping[str, np.ndarray]  # (splits, seeds, N) bool
    scores: Mapping[str, np.ndarray]  # (seeds, N) of the first split: how likely the digit is at least 5
    numbers: Mapping[str, np.ndarray]  # (seeds, N) of the first split: the digit as a number, by regression


def pool(size: Size, folder: Path) -> Pool:
    """The pool of this size, made at the first call and kept in `folder`."""
    file = folder / f"pool_{size.name}.npz"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        arrays = dict(made(size))
        half = file.with_suffix(".half.npz")
        np.savez(half, **arrays)
        half.replace(file)
    with np.load(file) as found:
        groups: dict[str, dict[str, np.ndarray]] = {"correct": {}, "scores": {}, "numbers": {}}
        for key in found.files:
            if key != "labels":
                group, arm = key.split(" ", 1)
                groups[group][arm] = unpacked(found[key], size.test) if group == "correct" else found[key]
        return Pool(found["labels"], **groups)


def unpacked(bits: np.ndarray, samples: int) -> np.ndarray:
    """The bool array whose last axis was packed."""
    return np.unpackbits(bits, axis=-1, count=samples).astype(bool)


def made(size: Size) -> Iterator[tuple[str, np.ndarray]]:
    """Names and arrays of a new pool."""
    splits = [digits(size.train + size.test, f"split {number}") for number in range(size.splits)]
    yield "labels", np.stack([labels[size.train :].numpy() for _, labels in splits])
    for samples in size.sources:
        network = representation(samples)
        features = [features_of(network, images) for images, _ in splits]
        for rate in RATES:
            arm = f"source={samples} lr={rate:g}"
            correct = []
            for number, (_, labels) in enumerate(splits):
                run = functools.partial(trained, features[number], labels, size, rate, number)
                logits = run(F.cross_entropy, CLASSES, labels)
                found = [(one.argmax(-1) == labels[size.train :]).numpy() for one in logits]
                correct.append(np.packbits(np.stack(found), axis=-1))
                if number == 0 and rate == SMOOTH_RATE:
                    large = (labels >= CLASSES // 2).long()
                    scores = [(one[:, 1] - one[:, 0]).half().numpy() for one in run(F.cross_entropy, 2, large)]
                    yield f"scores {arm}", np.stack(scores)
                    standard = (labels.float() - 4.5) / 2.87
                    found = [one[:, 0].half().numpy() for one in run(squared_error, 1, standard)]
                    yield f"numbers {arm}", np.stack(found)
            yield f"correct {arm}", np.stack(correct)


def digits(samples: int, name: str) -> tuple[Tensor, Tensor]:
    """Rendered digits `(N, 1, 8, 8)` in [0, 1] and their labels, in random order."""
    random = torch.Generator().manual_seed(len(name) + sum(map(ord, name)))
    labels = torch.randint(CLASSES, (samples,), generator=random)
    return render(labels, 32, 4, ("calibrate", name)).float() / 255, labels


def representation(samples: int) -> nn.Module:
    """A small network trained on that many rendered digits of its own; a random one for 0."""
    torch.manual_seed(samples)
    trunk = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
    )  # fmt: skip
    if samples:
        images, labels = digits(samples, "source")
        network = nn.Sequential(trunk, nn.Linear(128, CLASSES))
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
        for _ in range(400):
            batch = torch.randint(samples, (64,))
            loss = F.cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return trunk.eval()


@torch.no_grad()
def features_of(network: nn.Module, images: Tensor) -> Tensor:
    """Standardised features `(N, D)`."""
    features = torch.cat([network(part) for part in images.split(1000)])
    return (features - features.mean(0)) / features.std(0).clamp_min(1e-4)


def trained(
    features: Tensor, labels: Tensor, size: Size, rate: float, split: int, loss: Loss, outputs: int, target: Tensor
) -> Iterator[Tensor]:
    """Outputs `(N, outputs)` on the test samples of a head for each seed, seed by seed.

    A seed draws its labels, its first weights and its batches; it draws the same in every arm, so that arms pair by it.
    """
    random = torch.Generator().manual_seed(1000 + split)
    places = drawn(labels[: size.train], size.seeds, random)
    weights, bias = heads(features, places, target, rate, loss, outputs, random)
    test = features[size.train :]
    for weight, shift in zip(weights, bias, strict=True):
        yield test @ weight + shift


def heads(
    features: Tensor, places: Tensor, target: Tensor, rate: float, loss: Loss, outputs: int, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Weights `(runs, D, outputs)`, biases `(runs, 1, outputs)`; each run trains on its row of `places` `(runs, n)`."""
    runs, dim = len(places), features.shape[1]
    weights = torch.randn(runs, dim, outputs, generator=random).div_(dim**0.5).requires_grad_()
    bias = torch.zeros(runs, 1, outputs, requires_grad=True)
    optimizer = torch.optim.AdamW([weights, bias], lr=rate, weight_decay=0.01)
    for _ in range(STEPS):
        order = torch.rand(places.shape, generator=random).argsort(1)[:, :BATCH]
        batch = places.gather(1, order)
        logits = torch.baddbmm(bias, features[batch], weights)
        value = loss(logits.flatten(0, 1), target[batch].flatten())
        optimizer.zero_grad()
        (value * runs).backward()  # the mean over runs as well, which each must not feel
        optimizer.step()
    return weights.detach(), bias.detach()


def squared_error(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of `(n, 1)` outputs."""
    return F.mse_loss(outputs[:, 0], target)


def drawn(labels: Tensor, seeds: int, random: torch.Generator) -> Tensor:
    """Places `(seeds, n)` of LABELS_PER_CLASS samples of each class."""
    classes = [torch.nonzero(labels == name)[:, 0] for name in range(CLASSES)]
    picks = [torch.rand(seeds, len(places), generator=random).argsort(1)[:, :LABELS_PER_CLASS] for places in classes]
    return torch.cat([places[pick] for places, pick in zip(classes, picks, strict=True)], 1)

"""What choosing inside the label budget costs against a large validation set, on cached features, many subsets at once.

    python -m benchmarks.label_budget 20 experiment=resnet_ft

The first argument is the number of label subsets, the others choose data and pretrained backbone. For each subset every
configuration of a grid fixed beforehand trains a head on frozen features (or on pixels, which is from scratch), once on
all labels and once on each fold; all of these are one batch of small networks. Then each rule chooses configuration and
epoch, and its test score is compared with the choice by validation accuracy on the whole validation split.
"""

import itertools
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import graft
from graft.cache.extract import extract
from graft.data.splits import label_budget
from graft.pretrain import pretrain
from graft.report.statistics import over_units
from graft.selection.budget import Budget, clear_gain

LABELS = (2, 5, 10, 20)  # a class
INPUTS, HEADS, RATES = ("features", "pixels"), ("linear", "mlp"), (1e-3, 1e-2, 1e-1)
GRID = list(itertools.product(INPUTS, HEADS, RATES))  # 4 strategies x 3 rates
RECIPE = GRID.index(("features", "linear", 1e-3))  # frozen, with Graft's own head and rate
EPOCHS, HIDDEN, BATCH = 20, 64, 32
RULES = ("budget", "pooled", "ensemble", "recipe", "random")


@dataclass(frozen=True)
class Split:
    """Inputs by kind `(N, D)`, standardised by the training pool, and labels `(N,)`."""

    inputs: dict[str, Tensor]
    labels: Tensor


@dataclass(frozen=True)
class Trained:
    """A configuration's accuracies after each epoch: of folds `(F, E)`, validation and test `(E,)`; its last `(M, C)`
    test probabilities."""

    folds: Tensor
    val: Tensor
    test: Tensor
    probabilities: Tensor


def main(arguments: Sequence[str]) -> None:
    """Print a table: labels a class, and the mean loss of each rule in points with its 95 % interval over subsets."""
    subsets, overrides = int(arguments[0]), arguments[1:]
    splits, classes = read(overrides)
    losses: dict[str, list[list[float]]] = {rule: [] for rule in RULES}
    print(f"| labels a class | used | large validation | {' | '.join(RULES)} |")
    print(f"|---|---|---|{'---|' * len(RULES)}")
    for per_class in LABELS:
        found = [regrets(splits, classes, per_class, seed) for seed in range(subsets)]
        for rule in RULES:
            losses[rule].append([losses_of[rule] for _, losses_of in found])
        used = f"{per_class * len(classes)} + {len(splits['val'].labels)}"
        reference = 100 * statistics.fmean(score for score, _ in found)
        cells = [interval(losses[rule][-1]) for rule in RULES]
        print(f"| {per_class} | {used} | {reference:.1f} | {' | '.join(cells)} |", flush=True)
    means = [[statistics.fmean(cell) for cell in zip(*losses[rule], strict=True)] for rule in RULES]
    print(f"| mean | | | {' | '.join(map(interval, means))} |")
    print(f"n = {subsets} subsets of labels, one split, one pretraining; losses in points of test accuracy")


def interval(values: Sequence[float]) -> str:
    """A mean in points with its interval."""
    estimate = over_units(values, 0.0)
    low, high = estimate.interval() if estimate.has_interval else (estimate.mean, estimate.mean)
    return f"{100 * estimate.mean:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def read(overrides: Sequence[str]) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Features and pixels of the target's splits, and its classes."""
    experiment = graft.assemble(*overrides, "data.labels_per_class=null", "strategy=frozen", "logger=csv")
    pretrain(experiment)
    data, classes = experiment.data, experiment.data.classes("target")
    assert classes is not None
    splits = {}
    for name in ("train", "val", "test"):
        found = extract(experiment.module.backbone, data, "target", name, experiment.cache)
        pixels = torch.cat([batch.inputs.flatten(1).float() for batch in data.plain_batches("target", name)])
        assert found.labels is not None
        splits[name] = Split({"features": found.features, "pixels": pixels}, found.labels)
    scales = {kind: (values.mean(0), values.std(0) + 1e-3) for kind, values in splits["train"].inputs.items()}
    return {
        name: Split({kind: (split.inputs[kind] - m) / s for kind, (m, s) in scales.items()}, split.labels)
        for name, split in splits.items()
    }, classes


def regrets(
    splits: dict[str, Split], classes: tuple[str, ...], per_class: int, seed: int
) -> tuple[float, dict[str, float]]:
    """Test accuracy of the choice by the large validation split, and how much lower each rule's is."""
    chosen = label_budget(splits["train"].labels, per_class, seed, classes, "labels")
    train = Split({k: v[chosen] for k, v in splits["train"].inputs.items()}, splits["train"].labels[chosen])
    rule = Budget()
    rule.plan(train.labels, frozen=True, seed=seed)
    trained = [fit(train, splits, rule.held_out, len(classes), *config, seed) for config in GRID]
    best = max(trained, key=lambda one: float(one.val.max()))
    reference = float(best.test[best.val.argmax()])
    scores = {
        "budget": by_folds(trained),
        "pooled": pooled(trained, splits["test"].labels),
        "ensemble": accuracy(torch.stack([one.probabilities for one in trained]).mean(0), splits["test"].labels),
        "recipe": float(trained[RECIPE].test[-1]),
        "random": statistics.fmean(float(one.test[-1]) for one in trained),
    }
    return reference, {name: reference - score for name, score in scores.items()}


def by_folds(trained: Sequence[Trained]) -> float:
    """Test accuracy of the configuration and epoch that the folds choose."""
    epochs = [clear_gain(one.folds) for one in trained]
    folds = [one.folds[:, epoch] for one, epoch in zip(trained, epochs, strict=True)]
    best = max(range(len(trained)), key=lambda place: float(folds[place].mean()))
    clear = clear_gain(torch.stack([folds[best], folds[RECIPE]], dim=1)) == 0
    place = best if clear else RECIPE
    return float(trained[place].test[epochs[place]])


def pooled(trained: Sequence[Trained], labels: Tensor) -> float:
    """Test accuracy of the mean prediction of all configurations that the folds do not find clearly worse."""
    folds = [one.folds[:, -1] for one in trained]
    best = max(range(len(trained)), key=lambda place: float(folds[place].mean()))
    kept = [p for p in range(len(trained)) if clear_gain(torch.stack([folds[best], folds[p]], dim=1)) != 0]
    return accuracy(torch.stack([trained[place].probabilities for place in {best, *kept}]).mean(0), labels)


def fit(
    train: Split,
    splits: dict[str, Split],
    held_out: Sequence[Tensor],
    classes: int,
    kind: str,
    head: str,
    rate: float,
    seed: int,
) -> Trained:
    """Train a head on all labels and without each fold, as one stack of networks."""
    inputs, labels = train.inputs[kind], train.labels
    weights = torch.ones(len(held_out) + 1, len(labels))  # the last network has all
    for fold, indices in enumerate(held_out):
        weights[fold, indices] = 0.0
    torch.manual_seed(seed)
    sizes = [inputs.shape[1], *([HIDDEN] if head == "mlp" else []), classes]
    layers = [nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    stack = [
        p.detach().expand(len(weights), *p.shape).clone().requires_grad_()
        for layer in layers
        for p in (layer.weight, layer.bias)
    ]
    steps = max(1, -(-len(labels) // BATCH))
    optimizer = torch.optim.AdamW(stack, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * steps)
    curves: dict[str, list[Tensor]] = {"folds": [], "val": [], "test": []}
    whole = [p[-1:] for p in stack]
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).tensor_split(steps):
            logits = forward(stack, inputs[batch])
            loss = nn.functional.cross_entropy(
                logits.flatten(0, 1), labels[batch].repeat(len(weights)), reduction="none"
            ).view(len(weights), -1)
            own = weights[:, batch]
            optimizer.zero_grad()
            ((loss * own).sum(1) / own.sum(1).clamp(min=1)).sum().backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            right = (forward(stack, inputs).argmax(-1) == labels).float()
            curves["folds"].append(torch.stack([right[fold, indices].mean() for fold, indices in enumerate(held_out)]))
            for name in ("val", "test"):
                last = forward(whole, splits[name].inputs[kind])[0]
                curves[name].append(torch.tensor(accuracy(last, splits[name].labels)))
    return Trained(
        torch.stack(curves["folds"], 1), torch.stack(curves["val"]), torch.stack(curves["test"]), last.softmax(-1)
    )


def forward(stack: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """Logits `(networks, N, C)` of stacked weights and biases for the same inputs `(N, D)`."""
    values = inputs.expand(len(stack[0]), *inputs.shape)
    for place in range(0, len(stack), 2):
        values = torch.baddbmm(stack[place + 1].unsqueeze(1), values, stack[place].transpose(1, 2))
        values = values.relu() if place + 2 < len(stack) else values
    return values


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Fraction that is right, of scores `(N, C)`."""
    return float((scores.argmax(-1) == labels).float().mean())


if __name__ == "__main__":
    main(sys.argv[1:])

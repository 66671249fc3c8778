"""Linear models with an L2 penalty on fixed features, for a whole grid of penalties at once, to convergence.

Each penalty is that of `mean loss + penalty / 2 * ||W||^2` on features that are centred and scaled by one number, so
that their mean squared norm is 1: one grid suits every backbone and every number of samples. The bias is free. In
scikit-learn's words, on the features as they are, C is `scale^2 / (N * penalty)`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Literal["softmax", "sigmoid", "squares"]
MOST_STEPS = 1000
DECREMENT = 1e-14  # of the loss, twice what a Newton step would still gain: probabilities are then right to 1e-6
HISTORY = 20  # pairs of steps and gradients that L-BFGS keeps
HALVINGS, ARMIJO, ROUNDING, TINY = 20, 1e-4, 1e-12, 1e-300


@dataclass(frozen=True)
class Solutions:
    """What every penalty gives, on the features as they are: weights `(P, K, D)` and biases `(P, K)`."""

    weights: Tensor
    biases: Tensor
    steps: int  # of the longest fit
    converged: bool

    def logits(self, features: Tensor) -> Tensor:
        """`(P, N, K)` of features `(N, D)`."""
        return torch.einsum("nd,pkd->pnk", features.to(self.weights), self.weights) + self.biases.unsqueeze(1)


def solve(
    features: Tensor, targets: Tensor, penalties: Sequence[float], loss: Loss, weights: Tensor | None = None
) -> Solutions:
    """Fit features `(N, D)` to targets `(N, K)` in double precision; `weights` `(N, ...)` are those of the losses.

    `softmax`: class probabilities; two classes are one logistic regression, as in scikit-learn. `sigmoid`: each column
    on its own. `squares`: ridge regression of half the squared error, in closed form.
    """
    rows = Rows(features)
    strengths = torch.tensor(list(penalties), dtype=torch.float64, device=features.device)
    targets = targets.double()
    if loss == "squares":
        turned, biases, steps, converged = *ridge(rows, targets, strengths), 0, True
    elif loss == "softmax" and targets.shape[1] == 2:
        turned, biases, steps, converged = logistic(rows, targets[:, 1:], strengths, "sigmoid", weights)
        turned, biases = torch.cat([-turned, turned], dim=1) / 2, torch.cat([-biases, biases], dim=1) / 2
    else:
        turned, biases, steps, converged = logistic(rows, targets, strengths, loss, weights)
    found = rows.turned_back(turned)
    return Solutions(found, biases - found @ rows.mean, steps, converged)


class Rows:
    """Features centred, scaled and turned into the directions in which they differ, which changes no solution."""

    def __init__(self, features: Tensor) -> None:
        x = features.double()
        self.mean = x.mean(0)
        x = x - self.mean
        norm = float(x.square().sum(1).mean().sqrt())
        self.scale = 1 / norm if norm > 0 else 1.0
        x = x * self.scale
        if x.shape[0] < x.shape[1]:
            self.directions = torch.linalg.svd(x, full_matrices=False)[2].mT
        else:
            self.directions = torch.linalg.eigh(x.mT @ x)[1]
        self.values = x @ self.directions  # (N, R)
        self.variances = self.values.square().mean(0)  # (R,), which sum to 1

    def turned_back(self, weights: Tensor) -> Tensor:
        """Weights `(P, K, R)` of these as weights `(P, K, D)` of the features."""
        return weights @ self.directions.mT * self.scale


def ridge(rows: Rows, targets: Tensor, penalties: Tensor) -> tuple[Tensor, Tensor]:
    """Weights `(P, K, R)` and biases `(P, K)`: the directions are uncorrelated, so each has its own solution."""
    center = targets.mean(0)
    products = (targets - center).mT @ rows.values / len(targets)  # (K, R)
    weights = products / (rows.variances + penalties[:, None])[:, None]
    return weights, center.expand(len(penalties), -1)


def logistic(
    rows: Rows, targets: Tensor, penalties: Tensor, loss: Loss, sample_weights: Tensor | None
) -> tuple[Tensor, Tensor, int, bool]:
    """Weights `(P, K, R)`, biases `(P, K)`, steps and whether all converged, by L-BFGS on all penalties at once."""
    shape = (targets.shape[1], rows.values.shape[1] + 1)
    x = torch.cat([rows.values, torch.ones_like(rows.values[:, :1])], dim=1)  # the last weight is the bias
    squares = x.square()
    penalised = torch.ones(shape[1]).to(x)
    penalised[-1] = 0.0
    shares = torch.full((len(targets), 1), 1 / len(targets)).to(x)  # of each sample in the mean loss
    if sample_weights is not None:
        shares = shares * sample_weights.double().reshape(len(targets), -1)

    def evaluate(point: Tensor, which: Tensor) -> Evaluation:
        weights, penalty = point.unflatten(1, shape), penalties[which, None, None] * penalised
        logits = x @ weights.mT  # (A, N, K)
        if loss == "softmax":
            log_p = logits.log_softmax(-1)
            losses, p = -(targets * log_p).sum(-1, keepdim=True), log_p.exp()
        else:
            losses, p = F.softplus(logits) - targets * logits, logits.sigmoid()
        value = (losses * shares).sum((1, 2)) + (penalty / 2 * weights.square()).sum((1, 2))
        gradient = ((p - targets) * shares).mT @ x + penalty * weights
        curvature = (p * (1 - p) * shares).mT @ squares + penalty
        return Evaluation(value, gradient.flatten(1), curvature.flatten(1).clamp_min(TINY))

    found, steps, converged = minimise(evaluate, torch.zeros(len(penalties), shape[0] * shape[1]).to(x))
    weights, biases = found.unflatten(1, shape).tensor_split([shape[1] - 1], dim=2)
    return weights, biases.squeeze(2), steps, converged


class Evaluation(NamedTuple):
    """Of A functions of M numbers: values `(A,)`, gradients and the Hessians' diagonals `(A, M)`."""

    values: Tensor
    gradients: Tensor
    curvatures: Tensor

    def of(self, which: Tensor) -> "Evaluation":
        """Those of some of the functions."""
        return Evaluation(self.values[which], self.gradients[which], self.curvatures[which])


def minimise(evaluate: Callable[[Tensor, Tensor], Evaluation], start: Tensor) -> tuple[Tensor, int, bool]:
    """Minimise P convex functions of M numbers by L-BFGS (Liu and Nocedal, 1989) from `start` `(P, M)`.

    It begins at the Hessian's diagonal at each point, without which weak penalties would take many times as many steps.
    `evaluate(points, which)` takes the points `(A, M)` of those that have not converged, and their numbers `(A,)`.
    Returns the points, the steps of the longest fit and whether all came to the end.
    """
    found, which = start.clone(), torch.arange(len(start), device=start.device)
    point, now = start, evaluate(start, which)
    pairs: list[tuple[Tensor, Tensor]] = []  # steps and changes of the gradient, `(A, M)` each
    for step in range(MOST_STEPS):
        direction = -quasi_newton(now, pairs)
        slope = (direction * now.gradients).sum(1)
        going = -slope > DECREMENT
        if not going.all():
            found[which] = point
            which, point, now, direction, slope = (
                which[going],
                point[going],
                now.of(going),
                direction[going],
                slope[going],
            )
            pairs = [(s[going], y[going]) for s, y in pairs]
        if not len(which):
            return found, step, True
        length = torch.ones_like(slope)
        for _ in range(HALVINGS):
            moved = point + length[:, None] * direction
            then = evaluate(moved, which)
            falls = then.values <= now.values + ARMIJO * length * slope
            # Near the minimum rounding hides what the value still falls, but not that the slope does.
            flattens = ((then.gradients * direction).sum(1) <= (2 * ARMIJO - 1) * slope) & (
                then.values <= now.values + ROUNDING * now.values.abs()
            )
            if (good := falls | flattens).all():
                break
            length = torch.where(good, length, length / 2)
        pairs = [*pairs[-HISTORY + 1 :], (moved - point, then.gradients - now.gradients)]
        point, now = moved, then
    found[which] = point
    return found, MOST_STEPS, False


def quasi_newton(now: Evaluation, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The inverse Hessian that curvatures and the last steps show, times the gradient `(A, M)`: L-BFGS's two loops."""
    found, factors = now.gradients, []
    for s, y in reversed(pairs):
        inverse = 1 / (s * y).sum(1, keepdim=True).clamp_min(TINY)
        factor = inverse * (s * found).sum(1, keepdim=True)
        factors.append((inverse, factor))
        found = found - factor * y
    found = found / now.curvatures
    for (s, y), (inverse, factor) in zip(pairs, reversed(factors), strict=True):
        found = found + s * (factor - inverse * (y * found).sum(1, keepdim=True))
    return found

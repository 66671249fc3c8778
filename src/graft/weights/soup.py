"""Model soups: one network whose weights are the mean of several fine-tuned ones (Wortsman et al., ICML 2022)."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from graft.selection.base import rank

Weights = Mapping[str, Tensor]
Metrics = dict[str, float]
Name = TypeVar("Name", bound=Hashable)  # of an ingredient


@dataclass(frozen=True)
class Soup:
    """The better of two soups, and what both and their ingredients are worth on the validation split."""

    kind: str  # uniform or greedy
    weights: Weights
    metrics: Metrics  # all of them, of the better soup
    ingredients: dict[str, float]  # in the order in which they were tried
    uniform: float
    greedy: float
    members: list[str]  # ingredients of the greedy soup


def make_soup(
    ingredients: Mapping[str, Callable[[], Weights]],
    evaluate: Callable[[Weights], Metrics],
    monitor: str,
    higher_is_better: bool,
) -> Soup:
    """Make the uniform and the greedy soup and take the one that validates better, the greedy one where they are equal.

    The greedy soup tries the ingredients from the best to the worst and keeps each that does not make it worse, so it
    is never below the best of them. Weights are loaded when they are needed, so that a sweep may be large.
    """

    def worth(metrics: Metrics) -> float:
        return rank(metrics[monitor], higher_is_better)

    alone = {name: evaluate(load()) for name, load in ingredients.items()}
    order = sorted(alone, key=lambda name: worth(alone[name]), reverse=True)
    members, greedy, greedy_metrics = make_greedy(ingredients, alone, evaluate, worth)

    uniform = mean([ingredients[name] for name in order])
    uniform_metrics = evaluate(uniform)
    better = worth(uniform_metrics) > worth(greedy_metrics)
    return Soup(
        kind="uniform" if better else "greedy",
        weights=uniform if better else greedy,
        metrics=uniform_metrics if better else greedy_metrics,
        ingredients={name: alone[name][monitor] for name in order},
        uniform=uniform_metrics[monitor],
        greedy=greedy_metrics[monitor],
        members=members,
    )


def make_greedy(
    ingredients: Mapping[Name, Callable[[], Weights]],
    alone: Mapping[Name, Metrics],
    evaluate: Callable[[Weights], Metrics],
    worth: Callable[[Metrics], float],
) -> tuple[list[Name], Weights, Metrics]:
    """Members, weights and metrics of the greedy soup; `alone` holds the metrics of every ingredient by itself."""
    first, *others = sorted(ingredients, key=lambda name: worth(alone[name]), reverse=True)
    members, weights, metrics = [first], ingredients[first](), alone[first]
    for name in others:
        candidate = mix(weights, ingredients[name](), len(members))
        found = evaluate(candidate)
        if worth(found) >= worth(metrics):
            members, weights, metrics = [*members, name], candidate, found
    return members, weights, metrics


def mean(ingredients: Sequence[Callable[[], Weights]]) -> Weights:
    """Mean of the weights, one loaded after the other."""
    soup = ingredients[0]()
    for count, load in enumerate(ingredients[1:], start=1):
        soup = mix(soup, load(), count)
    return soup


def mix(soup: Weights, ingredient: Weights, count: int) -> Weights:
    """A mean of `count` ingredients with one more, BatchNorm statistics too; counters are those of the first."""
    return {
        name: value.lerp(ingredient[name], 1 / (count + 1)) if value.is_floating_point() else value
        for name, value in soup.items()
    }

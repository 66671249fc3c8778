"""Soups against explicit means, and the greedy one against a search written from the paper's algorithm."""

import math

import pytest
import torch

from graft.weights.soup import make_soup, mean, mix


def weights(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(3, 2, generator=generator, dtype=dtype),
        "running_var": torch.rand(3, generator=generator, dtype=dtype),
        "num_batches_tracked": torch.tensor(seed),
    }


def loads(*ingredients):
    return {f"job{i}": (lambda one=one: one) for i, one in enumerate(ingredients)}


def test_the_mean_is_the_mean_and_counters_are_the_firsts():
    three = [weights(seed) for seed in (4, 5, 6)]
    soup = mean([lambda one=one: one for one in three])
    for name in ("w", "running_var"):
        torch.testing.assert_close(soup[name], torch.stack([one[name] for one in three]).mean(0))
    assert soup["num_batches_tracked"] == 4


def test_equal_ingredients_make_the_same_again_bit_for_bit():
    one = weights(0, torch.float32)
    soup = mean([lambda: one] * 7)
    assert all(torch.equal(soup[name], value) for name, value in one.items())


def test_mixing_leaves_the_ingredients_as_they_were():
    first, second = weights(0), weights(1)
    mix(first, second, 1)
    assert all(torch.equal(value, weights(0)[name]) for name, value in first.items())


def distance_to(goal):
    """Validation that is the better the nearer the weights are to a goal."""
    return lambda soup: {"acc": -float((soup["w"] - goal).norm()), "loss": float((soup["w"] - goal).norm())}


def greedy_soup(ingredients, value):
    """Algorithm 1 of the paper, over lists of indices and explicit means."""

    def of(indices):
        return value({"w": torch.stack([ingredients[i]["w"] for i in indices]).mean(0)})["acc"]

    order = sorted(range(len(ingredients)), key=lambda i: -of([i]))
    kept = []
    for i in order:
        if not kept or of([*kept, i]) >= of(kept):
            kept.append(i)
    return kept, of(kept)


@pytest.mark.parametrize("seed", range(8))
def test_greedy_is_the_papers_and_never_below_its_best_ingredient(seed):
    ingredients = [weights(10 * seed + i) for i in range(5)]
    value = distance_to(weights(1000 + seed)["w"])
    soup = make_soup(loads(*ingredients), value, "acc", higher_is_better=True)
    members, best = greedy_soup(ingredients, value)
    assert soup.members == [f"job{i}" for i in members]
    assert soup.greedy == pytest.approx(best)
    assert soup.greedy >= max(soup.ingredients.values())
    assert soup.uniform == pytest.approx(value({"w": torch.stack([one["w"] for one in ingredients]).mean(0)})["acc"])
    assert soup.kind == ("uniform" if soup.uniform > soup.greedy else "greedy")
    assert value(soup.weights) == soup.metrics
    assert soup.metrics["acc"] == max(soup.uniform, soup.greedy)
    assert list(soup.ingredients.values()) == sorted(soup.ingredients.values(), reverse=True)


def test_where_lower_is_better_the_soup_is_the_same():
    ingredients, value = [weights(i) for i in range(5)], distance_to(weights(9)["w"])
    by_accuracy = make_soup(loads(*ingredients), value, "acc", higher_is_better=True)
    by_loss = make_soup(loads(*ingredients), value, "loss", higher_is_better=False)
    assert by_loss.members == by_accuracy.members
    assert by_loss.greedy == -by_accuracy.greedy


def test_the_uniform_soup_is_taken_where_it_is_better():
    goal = (weights(0)["w"] + weights(1)["w"] + weights(2)["w"]) / 3
    values = iter([0.5, 0.4, 0.3, 0.2, 0.2, 0.9])  # alone, then greedy's tries, then all together
    soup = make_soup(loads(weights(0), weights(1), weights(2)), lambda _: {"acc": next(values)}, "acc", True)
    assert (soup.kind, soup.members, soup.metrics) == ("uniform", ["job0"], {"acc": 0.9})
    torch.testing.assert_close(soup.weights["w"], goal)


def test_an_ingredient_that_diverged_is_the_last_and_stays_out():
    lost = {**weights(3), "w": torch.full((3, 2), math.nan, dtype=torch.float64)}
    value = distance_to(weights(0)["w"])
    soup = make_soup(loads(lost, weights(0), weights(1)), value, "acc", higher_is_better=True)
    assert list(soup.ingredients)[-1] == "job0"
    assert "job0" not in soup.members
    assert soup.kind == "greedy"


def test_a_validation_in_small_steps_keeps_what_makes_it_no_worse():
    soup = make_soup(loads(*(weights(i) for i in range(3))), lambda _: {"acc": 0.75}, "acc", higher_is_better=True)
    assert soup.members == ["job0", "job1", "job2"]
    assert soup.kind == "greedy"

"""The greedy soup of a run's best epochs (`averaging=greedy_soup`; Wortsman et al., ICML 2022, as in AutoGluon)."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from graft.experiment import Experiment
from graft.selection.base import rank
from graft.training.evaluation import validation_metrics
from graft.weights.averaging import Restated, network
from graft.weights.soup import Metrics, Weights, make_greedy


def apply(
    experiment: Experiment, selected: Mapping[str, Any], kept: Sequence[Mapping[str, Any]], batches: int
) -> tuple[Metrics, dict[str, Any]]:
    """Leave the greedy soup of the `kept` epochs in the module; its validation metrics, and what went in.

    The `selected` epoch, whose weights are in the module, is an ingredient too, so that the soup is never below it.
    """
    module, rule = experiment.module, experiment.rule
    monitor, higher = rule.monitor(module.tasks), rule.higher_is_better(module.tasks)
    assert monitor is not None  # see graft.config.conflicts
    tested = network(module)
    names = tested.state_dict().keys()
    module.apply_phase(module.phases(experiment.epochs)[-1])  # which layers train

    weights: dict[int, Weights] = {
        selected["epoch"]: {name: value.clone() for name, value in tested.state_dict().items()},
        **{one["epoch"]: {name: one["state_dict"][name].cpu() for name in names} for one in kept},
    }
    alone = {selected["epoch"]: selected["metrics"], **{one["epoch"]: one["metrics"] for one in kept}}

    def evaluate(mixed: Weights) -> Metrics:
        tested.load_state_dict(mixed)
        return validation_metrics(experiment, [Restated(batches)])

    def worth(metrics: Metrics) -> float:
        return rank(metrics[monitor], higher)

    loads = {epoch: functools.partial(weights.__getitem__, epoch) for epoch in weights}
    members, soup, metrics = make_greedy(loads, alone, evaluate, worth)
    tested.load_state_dict(soup)
    if len(members) > 1:
        metrics = evaluate(soup)
    return metrics, {
        "monitor": monitor,
        "chosen": "greedy",
        "greedy": metrics[monitor],
        "members": [name_of(epoch) for epoch in members],
        "epochs": sorted(members),
        "ingredients": {name_of(one): alone[one][monitor] for one in sorted(alone, key=lambda e: -worth(alone[e]))},
        "label_subsets": 1,
    }


def name_of(epoch: int) -> str:
    """An epoch, counted from 0, as it is printed."""
    return f"epoch {epoch + 1}"

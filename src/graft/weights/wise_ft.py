"""WiSE-FT: weights between the pretrained and the tuned ones (Wortsman et al., CVPR 2022)."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from graft.experiment import Experiment
from graft.heads.base import SHARED
from graft.module import TransferModule
from graft.selection.base import rank
from graft.training.evaluation import validation_metrics
from graft.weights.averaging import network

Weights = Mapping[str, Tensor]


def starting_weights(module: TransferModule, heads: Sequence[str]) -> dict[str, Tensor]:
    """Copies of the backbone's weights and those of the named heads, under the names of `network(module)`.

    What the strategy added to the backbone is folded in, as it will be after training.
    """
    backbone = copy.deepcopy(module.backbone)
    module.strategy.merge(backbone)
    weights = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    for head in heads:
        weights |= {f"heads.{head}.{name}": value.clone() for name, value in module.heads[head].state_dict().items()}
    return weights


def interpolate(start: Weights, end: Weights, alpha: float) -> dict[str, Tensor]:
    """`(1 - alpha) * start + alpha * end`, BatchNorm statistics too.

    Counters, and what has no start (a new head), are the end's.
    """
    return {
        name: start[name].to(value).lerp(value, alpha) if name in start and value.is_floating_point() else value
        for name, value in end.items()
    }


def choose(
    module: TransferModule,
    start: Weights,
    alphas: Sequence[float],
    evaluate: Callable[[], dict[str, float]],
    monitor: str,
    higher_is_better: bool,
) -> tuple[dict[float, float], float, dict[str, float]]:
    """Leave the best weights between `start` and the module's own in the module.

    `evaluate` returns validation metrics of the module as it is. Returns the monitored one for every alpha, the best
    alpha (of equally good ones the largest, which is nearest to the tuned weights) and all metrics there.
    """
    tested = network(module)
    end = {name: value.clone() for name, value in tested.state_dict().items()}
    found = {}
    for alpha in sorted(alphas):
        tested.load_state_dict(interpolate(start, end, alpha))
        found[alpha] = evaluate()
    best = max(found, key=lambda alpha: (rank(found[alpha][monitor], higher_is_better), alpha))
    tested.load_state_dict(interpolate(start, end, best))
    return {alpha: metrics[monitor] for alpha, metrics in found.items()}, best, found[best]


def start_of(experiment: Experiment) -> Weights:
    """The weights that `training.wise_ft_alphas` go from: the pretrained ones; empty where the key asks for nothing."""
    if not experiment.config["training"]["wise_ft_alphas"]:
        return {}
    heads = experiment.module.heads
    return starting_weights(experiment.module, [h for h in (SHARED, "source") if experiment.pretrained and h in heads])


def apply(experiment: Experiment, start: Weights) -> tuple[dict[str, float], dict[str, Any]]:
    """Leave the best weights between `start` and the tuned ones in the module; their metrics, and what was tried."""
    module, rule, alphas = experiment.module, experiment.rule, experiment.config["training"]["wise_ft_alphas"]
    monitor = rule.monitor(module.tasks)
    assert monitor is not None
    validate = functools.partial(validation_metrics, experiment)
    values, best, metrics = choose(module, start, alphas, validate, monitor, rule.higher_is_better(module.tasks))
    tried = [{"alpha": alpha, "value": value} for alpha, value in values.items()]
    return metrics, {"monitor": monitor, "alpha": best, "tried": tried}

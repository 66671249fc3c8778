"""WiSE-FT: weights between the pretrained and the tuned ones (Wortsman et al., CVPR 2022)."""

import copy
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from graft.module import TransferModule
from graft.selection.base import rank
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

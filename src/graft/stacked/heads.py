"""The heads of many jobs as one module whose parameters have two further dimensions: streams, and jobs in a stream."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from graft.heads.base import takes_local
from graft.tasks.base import Task

# Layers that hold nothing but parameters, and draw nothing.
STATELESS = (
    *(nn.Linear, nn.Identity, nn.Flatten, nn.LayerNorm),
    *(nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU, nn.LeakyReLU),
)


def why_alone(heads: nn.ModuleDict) -> str | None:
    """Which layer keeps a job's heads from training together with others'; None where none does."""
    if any(takes_local(head) for head in heads.values()):
        return "a head that takes tokens"
    for layer in heads.modules():
        inner = bool(list(layer.children()))
        if next(layer.buffers(recurse=False), None) is not None:
            return f"{type(layer).__name__} in the head"
        if not inner and not isinstance(layer, STATELESS) and not (isinstance(layer, nn.Dropout) and layer.p == 0):
            return f"{type(layer).__name__} in the head"
    return None


class StackedHeads:
    """Heads of S streams of R jobs each."""

    def __init__(self, streams: Sequence[Sequence[nn.ModuleDict]]) -> None:
        self.network = streams[0][0]
        self.shape = (len(streams), len(streams[0]))
        flat = [heads for stream in streams for heads in stream]
        self.parameters: dict[str, Tensor] = {
            name: stacked.detach().clone().unflatten(0, self.shape)
            for name, stacked in stack_module_state([*flat])[0].items()
        }

    def let_learn(self, names: Sequence[str]) -> list[Tensor]:
        """These parameters `(S, R, ...)`, with gradients from now on."""
        return [self.parameters[name].requires_grad_() for name in names]

    def logits(self, head: str, features: Tensor, *, by_stream: bool) -> Tensor:
        """Outputs `(S, R, B, K)` of features `(S, B, D)`, or `(B, D)` that all streams see."""
        network, prefix = self.network[head], f"{head}."
        own = {name.removeprefix(prefix): p for name, p in self.parameters.items() if name.startswith(prefix)}

        def outputs(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(network, dict(parameters), (x,))

        return vmap(vmap(outputs, (0, None)), (0, 0 if by_stream else None))(own, features)

    def of_job(self, stream: int, place: int) -> dict[str, Tensor]:
        """A copy of one job's parameters, by their names in its heads."""
        return {name: stacked[stream, place].detach().clone() for name, stacked in self.parameters.items()}

    def finite(self) -> Tensor:
        """Whether all parameters of a job are, `(S, R)`."""
        return torch.stack([stacked.detach().isfinite().flatten(2).all(2) for stacked in self.parameters.values()]).all(
            0
        )


def training_losses(task: Task, logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    """The task's mean loss of every job `(S, R)`: logits `(S, R, B, K)`, labels `(S, B, ...)`, weights `(S, K)`."""
    weighted = None if class_weights is None else 0
    of_stream = vmap(task.loss, (0, None, None))
    return vmap(of_stream, (0, 0, weighted))(logits, labels, class_weights)


def evaluation_losses(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    """A mean loss `(S, R)` of samples that all jobs see: logits `(S, R, B, K)`, labels `(B, ...)`."""
    return vmap(vmap(loss, (0, None)), (0, None))(logits, labels)

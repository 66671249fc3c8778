"""Further optimizer steps on a batch, which terms ask for after the objective's own (graft.terms.base.Update)."""

from collections.abc import Callable, Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from graft.errors import GraftError
from graft.training.lightning import holds_all_weights


def further_step(
    trainer: pl.Trainer,
    optimizer: Optimizer,
    parameters: Sequence[nn.Parameter],
    losses: Sequence[Callable[[], Tensor]],
) -> None:
    """Step on `parameters` alone, by the mean of the losses of the batches that make an optimizer step.

    Precision, clipping and callbacks are those of any step; Lightning's count of steps does not see it.
    """

    @torch.enable_grad()
    def closure() -> Tensor:
        optimizer.zero_grad()  # to None: what the loss does not reach is not stepped, nor decayed
        for loss in losses:
            with trainer.precision_plugin.forward_context():
                value = loss() / trainer.accumulate_grad_batches  # as Lightning divides, also of a shorter last step
            trainer.strategy.backward(value, None, inputs=parameters)
        if trainer.world_size > 1:  # DistributedDataParallel only synchronises what its own forward has announced
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad = trainer.strategy.reduce(parameter.grad, reduce_op="mean")
        return value

    trainer.strategy.optimizer_step(optimizer, closure)


def check_strategy(trainer: pl.Trainer, name: str) -> None:
    """GraftError where a term's further steps cannot be taken, because processes share one copy of the weights."""
    if not holds_all_weights(trainer):
        raise GraftError(
            f"term.{name} takes further optimizer steps, which trainer.strategy={type(trainer.strategy).__name__} "
            "cannot. Use trainer.strategy=auto or ddp, or leave the term out."
        )

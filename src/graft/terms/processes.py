"""What terms compute of the batches of all processes, as one process would of the whole batch."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from graft.data.sampling import rank_and_world


def several() -> bool:
    """Whether there is another process."""
    return rank_and_world()[1] > 1


def summed(tensor: Tensor) -> Tensor:
    """The sum over processes, through which gradients go to each of them."""
    return gathered_to_learn(tensor.unsqueeze(0)).sum(0) if several() else tensor


def gathered(tensor: Tensor) -> Tensor:
    """The rows `(B, ...)` of all processes, which have as many each; without gradient."""
    if not several():
        return tensor
    rows = [torch.empty_like(tensor) for _ in range(rank_and_world()[1])]
    dist.all_gather(rows, tensor.contiguous())
    return torch.cat(rows)


def gathered_to_learn(tensor: Tensor) -> Tensor:
    """The same, through which gradients go to each process.

    A loss of all rows is computed whole by every process; the mean of their gradients is then that of one process.
    """
    return _Rows.apply(tensor) if several() else tensor


def padded_to_longest(tensor: Tensor) -> Tensor:
    """`(B, L)` or `(B, L, D)` with zeros behind, so that L is the largest that a process has."""
    if not several():
        return tensor
    longest = torch.tensor(tensor.shape[1], device=tensor.device)
    dist.all_reduce(longest, dist.ReduceOp.MAX)
    return F.pad(tensor, (*(0, 0) * (tensor.dim() - 2), 0, int(longest) - tensor.shape[1]))


def of_whole_batch(tensor: Tensor) -> Tensor:
    """The same in the order of the one batch that the processes share: each has every so many of its rows."""
    number = rank_and_world()[1]
    rows = gathered(tensor)
    return rows.unflatten(0, (number, -1)).transpose(0, 1).flatten(0, 1) if number > 1 else rows


class _Rows(torch.autograd.Function):
    """The rows of all processes. Torch deprecates its own such function and has no public one instead."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        return gathered(tensor)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        rank, number = rank_and_world()
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(number)[rank]

"""What terms compute of the batches of all processes, as one process would of the whole batch."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather, all_reduce

from graft.data.sampling import rank_and_world


def several() -> bool:
    """Whether there is another process."""
    return rank_and_world()[1] > 1


def summed(tensor: Tensor) -> Tensor:
    """The sum over processes, through which gradients go to each of them."""
    return all_reduce(tensor) if several() else tensor


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
    return torch.cat(all_gather(tensor.contiguous())) if several() else tensor


def of_whole_batch(tensor: Tensor) -> Tensor:
    """The same in the order of the one batch that the processes share: each has every so many of its rows."""
    number = rank_and_world()[1]
    rows = gathered(tensor)
    return rows.unflatten(0, (number, -1)).transpose(0, 1).flatten(0, 1) if number > 1 else rows

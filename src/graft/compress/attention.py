"""Attention transfer: where a network is active shall be as in the teacher (Zagoruyko and Komodakis, ICLR 2017)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from graft.backbones.outputs import channel_dim


def energy(maps: Tensor, modality: str = "image") -> Tensor:
    """Sum of squares over the channels of maps, `(B, H, W)`, or of tokens `(B, N, D)`, `(B, N)`.

    Maps of sound are not square, so that their shape does not tell where the channels are: they come first.
    """
    return maps.square().sum(1 if modality == "audio" and maps.ndim == 4 else channel_dim(maps))


def attention_distance(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """`1/2 ||q / |q| - q0 / |q0| ||^2` of two energies, mean over samples.

    Energies are `(B, H, W)`, of which the larger one is averaged to the size of the smaller, or `(B, N)` of the same
    tokens, of which those count where the mask `(B, N)` is 1.
    """
    if student.ndim == 3:
        size = (min(student.shape[1], teacher.shape[1]), min(student.shape[2], teacher.shape[2]))
        student, teacher = (F.adaptive_avg_pool2d(one.unsqueeze(1), size).flatten(1) for one in (student, teacher))
    if mask is not None:
        student, teacher = student * mask, teacher * mask
    return F.mse_loss(F.normalize(student), F.normalize(teacher), reduction="sum") / (2 * len(student))


def paired(student: Sequence[str], teacher: Sequence[str]) -> list[tuple[str, str]]:
    """Stages of both at the same depth, from input to output: as many as the network with fewer has."""
    number = min(len(student), len(teacher))
    at_depth = [[(place + 1) * len(own) // number - 1 for place in range(number)] for own in (student, teacher)]
    return [(student[own], teacher[theirs]) for own, theirs in zip(*at_depth, strict=True)]

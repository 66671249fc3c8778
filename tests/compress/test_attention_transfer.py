"""Attention transfer against its formula in numpy, and which stages of two networks are compared."""

import numpy as np
import pytest
import torch

from graft.compress.attention import attention_distance, energy, paired


def by_hand(student, teacher, mask=None):
    """Of maps `(B, C, H, W)` of one size or tokens `(B, N, D)`."""
    total = 0.0
    for number, (own, theirs) in enumerate(zip(student, teacher, strict=True)):
        flat = [(one**2).sum(-1 if one.ndim == 2 else 0).reshape(-1) for one in (own, theirs)]
        if mask is not None:
            flat = [one[mask[number] == 1] for one in flat]
        unit = [one / np.sqrt((one**2).sum()) for one in flat]
        total += 0.5 * ((unit[0] - unit[1]) ** 2).sum()
    return total / len(student)


def random_maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shapes", [((3, 5, 4, 4), (3, 2, 4, 4)), ((3, 6, 5), (3, 6, 8))])
def test_value_and_gradient_are_those_of_the_formula(shapes):
    student, teacher = (random_maps(*shape, seed=seed) for seed, shape in enumerate(shapes))
    student.requires_grad_()
    value = attention_distance(energy(student), energy(teacher))
    assert value.item() == pytest.approx(by_hand(student.detach().numpy(), teacher.numpy()), rel=1e-12)
    value.backward()
    for place in ((0, 0, 0), (1, 2, 3), (2, 1, 1)):
        index = (*place, 2)[: student.ndim]
        shift = torch.zeros_like(student)
        shift[index] = 1e-6
        ahead, behind = (by_hand((student + sign * shift).detach().numpy(), teacher.numpy()) for sign in (1, -1))
        assert student.grad[index].item() == pytest.approx((ahead - behind) / 2e-6, rel=1e-4, abs=1e-9)


def test_padding_does_not_count():
    student, teacher = random_maps(2, 6, 5), random_maps(2, 6, 8, seed=1)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    value = attention_distance(energy(student), energy(teacher), mask).item()
    assert value == pytest.approx(by_hand(student.numpy(), teacher.numpy(), mask.numpy()), rel=1e-12)
    student[1, 3:] = 100
    assert attention_distance(energy(student), energy(teacher), mask).item() == value


def test_the_larger_map_is_averaged_to_the_smaller():
    small = random_maps(2, 3, 4, 4)
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert attention_distance(energy(small), energy(large)).item() == pytest.approx(0, abs=1e-15)
    assert attention_distance(energy(large), energy(small)).item() == pytest.approx(0, abs=1e-15)


def test_only_where_counts_and_not_how_strongly_or_in_how_many_channels():
    maps = random_maps(2, 3, 4, 4)
    assert attention_distance(energy(7 * maps), energy(maps.repeat(1, 2, 1, 1))).item() == pytest.approx(0, abs=1e-15)


def test_of_sound_the_channels_come_first_whatever_the_shape():
    maps = random_maps(2, 4, 4, 9)  # as many channels as bands
    assert energy(maps, "audio").shape == (2, 4, 9)


@pytest.mark.parametrize(
    ("student", "teacher", "pairs"),
    [
        ("ab", "wxyz", [("a", "x"), ("b", "z")]),
        ("abcd", "yz", [("b", "y"), ("d", "z")]),
        ("abc", "xyz", [("a", "x"), ("b", "y"), ("c", "z")]),
        ("abc", "vwxyz", [("a", "v"), ("b", "x"), ("c", "z")]),
    ],
)
def test_stages_are_compared_at_the_same_depth_and_the_last_with_the_last(student, teacher, pairs):
    assert paired(student, teacher) == pairs

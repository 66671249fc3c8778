"""Masked patches: the error patch by patch, that hidden pixels are not seen, gradients, and refusals."""

import numpy as np
import pytest
import torch
import toy

from graft.backbones.timm import TimmBackbone
from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.terms.base import TrainStep
from graft.terms.pretext.mae import EPSILON, MaskedPatches, error_of_hidden, patches_of


@pytest.fixture
def prepared():
    torch.manual_seed(0)
    backbone, term = TimmBackbone("test_vit", size=64, channels=1), MaskedPatches(decoder_size=8, decoder_blocks=1)
    term.prepare(toy.term_context(backbone))
    return backbone, term


def test_the_error_is_that_of_hidden_patches_with_mean_zero_and_variance_one():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    patches, painted = patches_of(images, (4, 4)), torch.randn(2, 4, 48, dtype=torch.float64)
    hidden = torch.tensor([[True, False, True, True], [False, False, True, True]])
    errors = []
    for sample, place in hidden.nonzero().tolist():
        row, column = 4 * (place // 2), 4 * (place % 2)
        patch = images[sample, :, row : row + 4, column : column + 4].numpy().flatten()
        wanted = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + EPSILON)
        errors.append(np.mean((painted[sample, place].numpy() - wanted) ** 2))
    assert len(errors) == 5
    assert float(error_of_hidden(painted, patches, hidden)) == pytest.approx(np.mean(errors), rel=1e-12)


def test_what_is_painted_depends_on_the_patches_that_are_kept_alone(prepared):
    _, term = prepared
    images = torch.randn(2, 1, 64, 64, requires_grad=True)
    kept = torch.tensor([[0, 5, 6, 15], [3, 2, 1, 9]])
    painted = term.painted(images, kept)
    assert painted.shape == (2, 16, 256)
    (gradient,) = torch.autograd.grad(painted.square().sum(), images)
    moved = patches_of(gradient, (16, 16)).abs().sum(2) > 0
    assert moved.nonzero().tolist() == [[0, 0], [0, 5], [0, 6], [0, 15], [1, 1], [1, 2], [1, 3], [1, 9]]


def test_gradients_reach_the_backbones_blocks_and_the_decoder(prepared):
    backbone, term = prepared
    step = TrainStep({"source": DomainBatch(torch.randn(3, 1, 64, 64))}, {}, {}, 0.0)
    term(step).backward()
    for parameter in (*backbone.network.blocks.parameters(), *term.parameters()):
        assert parameter.grad.isfinite().all()
    for parameter in (backbone.network.patch_embed.proj.weight, term.mask, term.positions, term.paint.weight):
        assert parameter.grad.abs().sum() > 0


def test_with_all_patches_kept_the_backbone_runs_as_it_does_otherwise(prepared):
    backbone, term = prepared
    images, order = torch.randn(2, 1, 64, 64), torch.arange(16).expand(2, -1)
    seen = {}
    handle = backbone.network.norm.register_forward_hook(lambda _m, _x, output: seen.update(tokens=output))
    term.painted(images, order)
    handle.remove()
    torch.testing.assert_close(seen["tokens"], backbone.network.forward_features(images))


def test_other_networks_and_decoders_are_refused_by_name(tiny_backbone):
    with pytest.raises(GraftError, match=r"which .* cannot\. Use a vision transformer"):
        MaskedPatches().check(toy.term_context(tiny_backbone()))
    with pytest.raises(GraftError, match="decoder_size=10 must be a multiple"):
        MaskedPatches(decoder_size=10)

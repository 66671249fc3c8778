"""Masked autoencoder: most patches of an image are left out and painted from the rest (He et al., CVPR 2022)."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.config.types import Count, FractionBelowOne, NonNegative
from graft.errors import GraftError
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.pretext.two_views import Side

EPSILON = 1e-6  # of the authors, beside a patch's variance
HEADS = 4  # of the decoder's attention
STD = 0.02  # of the decoder's first positions and mask


def patches_of(images: Tensor, side: tuple[int, int]) -> Tensor:
    """Images `(B, C, H, W)` cut into N patches `(B, N, C h w)`, row by row."""
    return F.unfold(images, side, stride=side).transpose(1, 2)


def error_of_hidden(painted: Tensor, patches: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error of patches `(B, N, P)`, each with mean 0 and variance 1, where `hidden` `(B, N)` is true."""
    mean, variance = patches.mean(dim=2, keepdim=True), patches.var(dim=2, keepdim=True)
    wanted = (patches - mean) / (variance + EPSILON).sqrt()
    return (painted - wanted).square().mean(dim=2)[hidden].mean()


class MaskedPatches(Term):
    """The error of the patches that the backbone does not see, painted by a small transformer from those that it does.

    That decoder is left behind after training. Raises GraftError for a backbone other than timm's vision transformers:
    no other can leave patches out.
    """

    modalities = ("image",)
    needs_outputs = False

    def __init__(
        self,
        weight: NonNegative = 1.0,
        domain: Side = "source",
        hidden: FractionBelowOne = 0.75,
        decoder_size: Count = 64,
        decoder_blocks: Count = 2,
    ) -> None:
        super().__init__()
        if decoder_size % HEADS:
            raise GraftError(f"term.mae.decoder_size={decoder_size} must be a multiple of {HEADS}.")
        self.weight = weight
        self.domains = (domain,)
        self.hidden = hidden
        self.size, self.blocks = decoder_size, decoder_blocks

    def check(self, context: TermContext) -> None:
        """GraftError where patches cannot be left out."""
        vision_transformer(context.backbone)

    def prepare(self, context: TermContext) -> None:
        """Make the decoder."""
        network = vision_transformer(context.backbone)
        self.side: tuple[int, int] = network.patch_embed.patch_size
        channels, patches = network.patch_embed.proj.in_channels, network.patch_embed.num_patches
        self.embed = nn.Linear(network.embed_dim, self.size)
        self.mask = nn.Parameter(STD * torch.randn(1, 1, self.size))
        self.positions = nn.Parameter(STD * torch.randn(1, patches, self.size))
        block = nn.TransformerEncoderLayer(
            self.size, HEADS, 4 * self.size, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(self.size)
        self.decoder = nn.TransformerEncoder(block, self.blocks, norm, enable_nested_tensor=False)
        self.paint = nn.Linear(self.size, channels * self.side[0] * self.side[1])
        self._backbone = (context.backbone,)  # in a tuple, so that it is no part of this module

    def forward(self, step: TrainStep) -> Tensor:
        """The loss of the step's images."""
        images = step.inputs[self.domains[0]]
        assert isinstance(images, Tensor)
        number = self.positions.shape[1]
        order = torch.rand(len(images), number, device=images.device).argsort(dim=1)
        kept = order[:, : max(1, round((1 - self.hidden) * number))]
        hidden = torch.ones_like(order, dtype=torch.bool).scatter(1, kept, False)
        return error_of_hidden(self.painted(images, kept), patches_of(images, self.side), hidden)

    def painted(self, images: Tensor, kept: Tensor) -> Tensor:
        """All patches `(B, N, P)` as the decoder paints them from those at `kept` `(B, K)`."""
        network = vision_transformer(self._backbone[0])
        first = network.num_prefix_tokens
        tokens = network._pos_embed(network.patch_embed(images))
        seen = tokens[:, first:].gather(1, kept.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
        encoded = self.embed(
            network.norm(network.blocks(network.norm_pre(torch.cat([tokens[:, :first], seen], dim=1))))
        )
        whole = self.mask.expand(len(images), self.positions.shape[1], -1)
        whole = whole.scatter(1, kept.unsqueeze(2).expand(-1, -1, self.size), encoded[:, first:])
        decoded = self.decoder(torch.cat([encoded[:, :first], whole + self.positions], dim=1))
        return self.paint(decoded[:, first:])


def vision_transformer(backbone: Backbone) -> Any:
    """A backbone's network where it is a vision transformer of timm's, which can leave patches out; else GraftError."""
    network = backbone.network
    if not isinstance(network, VisionTransformer):
        raise GraftError(
            f"term.mae leaves patches out, which {backbone.name} cannot. Use a vision transformer of timm's, such as "
            "backbone=vit, or another method: pretrain=simclr, vicreg or byol."
        )
    return network

"""Masked language modelling: hidden tokens of a text are predicted from the others (Devlin et al., NAACL 2019)."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.backbones.text import TextBackbone
from graft.config.types import Fraction, NonNegative
from graft.errors import GraftError
from graft.inputs.base import Fields
from graft.inputs.text import Tokenizer
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.pretext.two_views import Side

MASKED, RANDOM = 0.8, 0.1  # of the hidden tokens: replaced by the mask, by a random token; the rest stays


def hidden_places(text: Fields, special: Tensor, fraction: float) -> Tensor:
    """Which tokens `(B, L)` of each text are hidden: `fraction` of those that are not special, one at least."""
    allowed = (text["attention_mask"] == 1) & ~torch.isin(text["input_ids"], special)
    ranks = torch.rand(allowed.shape, device=allowed.device).masked_fill(~allowed, 2).argsort(dim=1).argsort(dim=1)
    number = (fraction * allowed.sum(dim=1)).round().clamp(min=1)
    return allowed & (ranks < number[:, None])


def with_hidden(ids: Tensor, hidden: Tensor, mask: int, size: int) -> Tensor:
    """Token ids `(B, L)` with the hidden ones masked, random or as they are, in the shares of the paper."""
    draw = torch.rand(ids.shape, device=ids.device)
    changed = torch.where(draw < MASKED, mask, torch.randint_like(ids, size))
    return torch.where(hidden & (draw < MASKED + RANDOM), changed, ids)


class MaskedTokens(Term):
    """Cross-entropy of the hidden tokens, predicted by a linear layer from the backbone's last token vectors.

    The layer is left behind after training. Where a tokenizer has no mask of its own, as a vocabulary of words, the
    unknown token stands for it. Raises GraftError for a text backbone without a vector for each token.
    """

    modalities = ("text",)
    needs_outputs = False

    def __init__(self, weight: NonNegative = 1.0, domain: Side = "source", fraction: Fraction = 0.15) -> None:
        super().__init__()
        self.weight = weight
        self.domains = (domain,)
        self.fraction = fraction

    def check(self, context: TermContext) -> None:
        """GraftError where no token can be hidden."""
        if tokenizer_of(context).mask is None:
            raise GraftError(
                f"term.mlm: the tokenizer of {context.backbone.name} has neither a mask nor an unknown token. Use "
                "another backbone, such as backbone=lstm or backbone=bert."
            )

    def prepare(self, context: TermContext) -> None:
        """Make the layer."""
        self.check(context)
        tokenizer = tokenizer_of(context)
        with torch.no_grad():
            size = context.backbone.tokens(context.backbone.example_inputs(1)).values.shape[-1]
        self.decoder = nn.Linear(size, tokenizer.size)
        self.register_buffer("special", torch.tensor(sorted(tokenizer.special)), persistent=False)
        self.mask, self.size = cast(int, tokenizer.mask), tokenizer.size
        self._backbone = (context.backbone,)  # in a tuple, so that it is no part of this module

    def forward(self, step: TrainStep) -> Tensor:
        """The loss of the step's texts."""
        text = step.inputs[self.domains[0]]
        assert isinstance(text, Fields)
        hidden = hidden_places(text, cast(Tensor, self.special), self.fraction)
        ids = with_hidden(text["input_ids"], hidden, self.mask, self.size)
        tokens = self._backbone[0].tokens(Fields({**text.tensors, "input_ids": ids}))
        logits = self.decoder(tokens.values[hidden])
        total = F.cross_entropy(logits, text["input_ids"][hidden], reduction="sum")
        return total / max(1, len(logits))  # none where a batch's texts have no word


def tokenizer_of(context: TermContext) -> Tokenizer:
    """The backbone's, which is one for texts."""
    return cast(TextBackbone, context.backbone).tokenizer

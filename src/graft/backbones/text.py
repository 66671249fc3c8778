"""What backbones for text have in common: a tokenizer in their input spec, and how token vectors become one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graft.backbones.base import Backbone, Stage
from graft.backbones.outputs import Tokens
from graft.errors import GraftError
from graft.inputs.base import Fields
from graft.inputs.text import TextSpec, Tokenizer

EXAMPLE_LENGTH = 8  # tokens of an example


class TextBackbone(Backbone):
    """`input_ids` and `attention_mask`, both `(B, L)`, to features `(B, D)`."""

    modality = "text"

    def __init__(
        self,
        name: str,
        network: nn.Module,
        *,
        tokenizer: Tokenizer,
        max_length: int,
        feature_size: int,
        stages: Sequence[Stage],
    ) -> None:
        super().__init__(name, network, feature_size=feature_size, stages=stages)
        self.tokenizer = tokenizer
        self.max_length = max_length

    def local(self, x: Fields) -> dict[str, Tensor]:
        """Vectors `(B, L, D)` of the tokens after each stage; the inputs' mask says which of them count."""
        return self.stage_outputs(x, first=True)

    def tokens(self, x: Fields) -> Tokens:
        """The last vectors of the tokens with the inputs' mask."""
        return Tokens(super().tokens(x).values, x["attention_mask"])

    @property
    def input_spec(self) -> TextSpec:
        """The tokenizer and the longest text."""
        return TextSpec(self.tokenizer, self.max_length)

    def example_inputs(self, samples: int = 2) -> Fields:
        """Random tokens `(samples, L)` without padding, always the same ones."""
        random = torch.Generator().manual_seed(0)
        shape = (samples, min(EXAMPLE_LENGTH, self.max_length))
        ids = torch.randint(self.tokenizer.size, shape, generator=random)
        fields = Fields({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        return fields.to(next(self.parameters()).device)


def mean_pooled(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean `(B, D)` of token vectors `(B, L, D)` where the mask `(B, L)` is 1."""
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


def first_pooled(tokens: Tensor, mask: Tensor) -> Tensor:
    """The first token's vector `(B, D)`, BERT's class token."""
    return tokens[:, 0]


def last_pooled(tokens: Tensor, mask: Tensor) -> Tensor:
    """The vector `(B, D)` of the last token where the mask `(B, L)` is 1, on whichever side the padding is."""
    places = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * places).argmax(1)  # 0 where there is no token
    # Not by len() or take_along_dim(), which would tie an exported graph to one size.
    return tokens.gather(1, last[:, None, None].expand(-1, 1, tokens.shape[2])).squeeze(1)


POOLINGS = {"mean": mean_pooled, "cls": first_pooled, "last": last_pooled}


def check_pooling(pooling: str) -> None:
    """Raise GraftError for a pooling that there is not."""
    if pooling not in POOLINGS:
        raise GraftError(f"backbone.pooling={pooling} is not known. Allowed: {', '.join(POOLINGS)}.")

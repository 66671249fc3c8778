"""A head that pools by itself, by attention over an image's places or a text's tokens."""

import torch
from torch import Tensor, nn

from graft.backbones.outputs import Tokens
from graft.config.types import Count, FractionBelowOne
from graft.heads.base import HeadContext


class AttentionHead(nn.Module):
    """Attentive pooling (Yang et al., 2016) with one learned query, then a linear layer.

    It begins as the mean, because the query begins at zero.
    """

    takes = "local"

    def __init__(self, context: HeadContext, hidden: Count = 128, dropout: FractionBelowOne = 0.0) -> None:
        super().__init__()
        assert context.local_size is not None  # it says that it takes tokens
        self.project = nn.Linear(context.local_size, hidden)
        self.query = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.query.weight)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(context.local_size, context.num_outputs)

    def attention(self, tokens: Tokens) -> Tensor:
        """Weights `(B, T)` of the tokens, 0 where the mask is, 1 in sum."""
        scores = self.query(torch.tanh(self.project(tokens.values))).squeeze(-1).float()
        return scores.masked_fill(tokens.mask == 0, -torch.inf).softmax(-1)

    def pooled(self, tokens: Tokens) -> Tensor:
        """The vector `(B, D)` that is classified."""
        weights = self.attention(tokens).to(tokens.values.dtype)
        return (weights.unsqueeze(-1) * tokens.values).sum(1)

    def forward(self, tokens: Tokens) -> Tensor:
        """Predictions `(B, K)` of tokens `(B, T, D)`."""
        return self.linear(self.dropout(self.pooled(tokens)))

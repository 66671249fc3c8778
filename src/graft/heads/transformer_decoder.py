"""A small transformer decoder (Vaswani et al., 2017), by torch's layers."""

import torch
from torch import Tensor, nn

from graft.backbones.outputs import Tokens
from graft.config.types import Count, FractionBelowOne
from graft.errors import GraftError
from graft.heads.base import HeadContext
from graft.heads.decoding import PADDING, RereadingDecoder, State


class TransformerDecoder(RereadingDecoder):
    """Layers that look at the tokens before and at the input's, normalised first; positions are learned."""

    def __init__(
        self,
        context: HeadContext,
        width: Count = 128,
        layers: Count = 2,
        heads: Count = 4,
        dropout: FractionBelowOne = 0.1,
        positions: Count = 128,
        tied: bool = True,
    ) -> None:
        """`positions` is the longest text in tokens; `tied`: one matrix for tokens that go in and come out."""
        super().__init__()
        assert context.local_size is not None  # it says that it takes tokens
        if width % heads:
            raise GraftError(f"head.width={width} has to be a multiple of head.heads={heads}.")
        self.embedding = nn.Embedding(context.num_outputs, width, padding_idx=PADDING)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)  # also scores: of size 1 at first
        self.position = nn.Parameter(torch.randn(positions, width) * 0.02)
        self.memory = nn.Linear(context.local_size, width)
        layer = nn.TransformerDecoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width))
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, context.num_outputs)
        if tied:
            self.output.weight = self.embedding.weight

    def looked_at(self, memory: Tokens) -> Tokens:
        """In the layers' width."""
        return Tokens(self.memory(memory.values), memory.mask)

    def logits(self, ids: Tensor, state: State) -> Tensor:
        """Logits `(M, T, V)`."""
        length = ids.shape[1]
        if length > len(self.position):
            raise GraftError(
                f"head.positions={len(self.position)}: a text has {length} tokens. Set head.positions={length}, or a "
                "smaller task.max_length."
            )
        later = torch.ones(length, length, dtype=torch.bool, device=ids.device).triu(1)
        x = self.embedding(ids) * self.embedding.embedding_dim**0.5 + self.position[:length]
        x = self.layers(
            self.dropout(x),
            state["memory"],
            tgt_mask=later,
            memory_key_padding_mask=state["mask"] == 0,
        )
        return self.output(self.dropout(x))

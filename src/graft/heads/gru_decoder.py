"""A decoder that reads with attention while it writes: a GRU over its own tokens."""

import torch
from torch import Tensor, nn

from graft.backbones.outputs import Tokens
from graft.config.types import Count, FractionBelowOne
from graft.heads.base import HeadContext
from graft.heads.decoding import PADDING, Decoder, State, expanded


class GRUDecoder(Decoder):
    """A GRU whose states ask for what to read of the input (Luong et al., 2015, dot products), then for the next token.

    The states begin from the mean of the input's tokens. Scores come from the embeddings of the tokens (Press and Wolf,
    2017), or from a layer of their own.
    """

    def __init__(
        self, context: HeadContext, width: Count = 256, dropout: FractionBelowOne = 0.3, tied: bool = True
    ) -> None:
        """`width` is that of embeddings and states; `tied`: one matrix for tokens that go in and come out."""
        super().__init__()
        assert context.local_size is not None  # it says that it takes tokens
        self.embedding = nn.Embedding(context.num_outputs, width, padding_idx=PADDING)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)  # also scores: of size 1 at first
        self.begin = nn.Linear(context.local_size, width)
        self.key = nn.Linear(context.local_size, width, bias=False)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.mix = nn.Linear(width + context.local_size, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, context.num_outputs)
        if tied:
            self.output.weight = self.embedding.weight

    def start(self, memory: Tokens) -> State:
        """States that know what the input is about."""
        weights = memory.mask.unsqueeze(-1).to(memory.values.dtype)
        mean = (memory.values * weights).sum(1) / weights.sum(1).clamp(min=1)
        return expanded(memory, {"key": self.key(memory.values), "hidden": torch.tanh(self.begin(mean))})

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """One token further."""
        logits, hidden = self._run(ids.unsqueeze(1), state)
        return logits[:, 0], {**state, "hidden": hidden}

    def score(self, memory: Tokens, ids: Tensor) -> Tensor:
        """All tokens at once."""
        return self._run(ids, self.start(memory))[0]

    def _run(self, ids: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Logits `(M, T, V)` and the last state `(M, D)`."""
        inputs = self.dropout(self.embedding(ids) * self.embedding.embedding_dim**0.5)
        states, last = self.gru(inputs, state["hidden"].unsqueeze(0).contiguous())
        scores = (states @ state["key"].transpose(1, 2)).float() * states.shape[-1] ** -0.5
        weights = scores.masked_fill(state["mask"].unsqueeze(1) == 0, -torch.inf).softmax(-1)
        read = weights.to(states.dtype) @ state["memory"]
        mixed = torch.tanh(self.mix(torch.cat([self.dropout(states), read], dim=-1)))
        return self.output(self.dropout(mixed)), last.squeeze(0)

"""A text by its spelling: a GRU over characters that learns from nothing, together with what it is compared with."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graft.backbones.recurrent import RecurrentLayer
from graft.config.types import Count
from graft.heads.towers.base import Tower

PADDING = 256  # behind the 256 values of a byte
LONGEST = 512  # bytes of a text that are read


class Characters(Tower):
    """UTF-8 bytes, one embedding each, a bidirectional GRU, the mean and the maximum of its states, a linear layer.

    Of a longer text the first 512 bytes count. Bytes need no vocabulary, so that a name which was not there in training
    has no unknown part.
    """

    def __init__(self, size: Count = 128, hidden: Count = 128) -> None:
        super().__init__(size)
        self.embedding = nn.Embedding(PADDING + 1, hidden, padding_idx=PADDING)
        self.layer = RecurrentLayer("gru", hidden, hidden, bidirectional=True)
        self.linear = nn.Linear(4 * hidden, size)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Vectors `(N, size)` of texts, whose capitals count as small letters."""
        codes, lengths = bytes_of(texts)
        codes, lengths = codes.to(self.linear.weight.device), lengths.to(self.linear.weight.device)
        states = self.layer(self.embedding(codes), lengths)  # (N, L, 2 * hidden)
        inside = (torch.arange(codes.shape[1], device=codes.device) < lengths[:, None]).unsqueeze(-1)
        mean = (states * inside).sum(1) / lengths[:, None].to(states.dtype)
        largest = states.masked_fill(~inside, -torch.inf).amax(1)
        return self.linear(torch.cat([mean, largest], dim=1))


def bytes_of(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Bytes `(N, L)` with PADDING behind the end of shorter texts, and how many there are `(N,)`."""
    rows = [torch.tensor([*text.lower().encode()[:LONGEST]] or [PADDING]) for text in texts]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PADDING), torch.tensor([*map(len, rows)])

"""What decoders have in common: teacher forcing, greedy decoding and beam search, whatever scores a next token."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.backbones.outputs import Tokens

PADDING, BEGIN, END = 0, 1, 2  # ids of every decoder, see graft.tasks.target_tokens

State = dict[str, Tensor]  # of a decoder after some tokens, each `(M, ...)` for M texts


class Decoder(nn.Module):
    """Token by token, a text of a memory: the vectors of an input's tokens.

    A subclass says what it scores; from that comes what is trained and what is written.
    """

    takes = "local"
    writes = True

    def start(self, memory: Tokens) -> State:
        """The state before the first token of each text."""
        raise NotImplementedError

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits `(M, V)` of the next token behind the newest ones `(M,)`, and the state then."""
        raise NotImplementedError

    def score(self, memory: Tokens, ids: Tensor) -> Tensor:
        """Logits `(B, T, V)` of the tokens that follow each of `ids` `(B, T)`, given those before."""
        raise NotImplementedError

    def forward(self, memory: Tokens) -> "DecoderOutputs":
        """What can be asked for the texts of some inputs."""
        return DecoderOutputs(memory, self)


class RereadingDecoder(Decoder):
    """One that looks at all tokens before in every step, so that they are all of its state beside the input."""

    def looked_at(self, memory: Tokens) -> Tokens:
        """The input's tokens as the decoder looks at them."""
        return memory

    def logits(self, ids: Tensor, state: State) -> Tensor:
        """Logits `(M, T, V)` of what comes after each of `ids` `(M, T)`."""
        raise NotImplementedError

    def start(self, memory: Tokens) -> State:
        """No token yet."""
        none = torch.zeros(len(memory), 0, dtype=torch.int64, device=memory.values.device)
        return expanded(self.looked_at(memory), {"ids": none})

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """One token further."""
        written = torch.cat([state["ids"], ids.unsqueeze(1)], dim=1)
        return self.logits(written, state)[:, -1], {**state, "ids": written}

    def score(self, memory: Tokens, ids: Tensor) -> Tensor:
        """All tokens at once."""
        return self.logits(ids, self.start(memory))


@dataclass(frozen=True)
class DecoderOutputs:
    """What a decoder says of B inputs, in the place of logits: it depends on the tokens that are there already."""

    memory: Tokens
    decoder: Decoder

    def __len__(self) -> int:
        return len(self.memory)

    def __getitem__(self, samples: slice) -> "DecoderOutputs":
        """Those of some inputs."""
        return replace(self, memory=Tokens(self.memory.values[samples], self.memory.mask[samples]))

    def detach(self) -> "DecoderOutputs":
        """Without the graph of the memory."""
        return replace(self, memory=Tokens(self.memory.values.detach(), self.memory.mask))

    @property
    def device(self) -> torch.device:
        """Where the memory is."""
        return self.memory.values.device

    @property
    def requires_grad(self) -> bool:
        """Whether anything can learn from them."""
        learns = any(parameter.requires_grad for parameter in self.decoder.parameters())
        return torch.is_grad_enabled() and (learns or self.memory.values.requires_grad)

    def forced(self, ids: Tensor) -> Tensor:
        """Logits `(B, T, V)` of each of `ids` `(B, T)`, given those before it (teacher forcing)."""
        return self.decoder.score(self.memory, F.pad(ids[:, :-1], (1, 0), value=BEGIN)).float()

    def sum(self) -> Tensor:
        """Of every logit for two tokens of each text, for what needs a number to go back from."""
        return self.forced(torch.full((len(self), 2), END, device=self.device)).sum()

    @torch.no_grad()
    def written(self, steps: int, width: int, length_penalty: float, unwritten: Sequence[int]) -> Tensor:
        """Ids `(B, T)` of the texts that beam search finds, at most `steps` tokens; with `width` 1 it is greedy."""
        return beam_search(self.decoder, self.memory, steps, width, length_penalty, unwritten)


def token_sums(logits: Tensor, ids: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Of each text `(B, 3)`: log-likelihood, tokens that are the most probable ones, tokens.

    Logits are `(B, T, V)`, ids `(B, T)`; padding counts nowhere.
    """
    real = ids != PADDING
    losses = F.cross_entropy(
        logits.flatten(0, 1), ids.flatten(), ignore_index=PADDING, label_smoothing=label_smoothing, reduction="none"
    ).view(ids.shape)
    right = (logits.argmax(-1) == ids) & real
    return torch.stack([-losses.sum(1), right.sum(1).to(losses), real.sum(1).to(losses)], dim=1)


def beam_search(
    decoder: Decoder, memory: Tokens, steps: int, width: int, length_penalty: float, unwritten: Sequence[int]
) -> Tensor:
    """Ids `(B, T)` of the best text of each of B memories among `width` that are followed at once.

    A text is worth its log-likelihood over its number of tokens to the power of `length_penalty`; one that ends stays
    among the `width` as long as nothing that goes on is more probable. `unwritten` are ids that no text has.
    """
    batch, device = len(memory), memory.values.device
    state = {name: one.repeat_interleave(width, 0) for name, one in decoder.start(memory).items()}
    newest = torch.full((batch * width,), BEGIN, device=device)
    texts = newest.new_empty(batch * width, 0)
    total = torch.full((batch, width), -torch.inf, device=device)
    total[:, 0] = 0  # at first all are the same
    ended = torch.zeros(batch, width, dtype=torch.bool, device=device)
    first = torch.arange(batch, device=device).unsqueeze(1) * width
    for _ in range(steps):
        logits, state = decoder.step(newest, state)
        logits = logits.float()
        logits[:, list(unwritten)] = -torch.inf
        scores = logits.log_softmax(-1).view(batch, width, -1)
        only_padding = torch.full_like(scores[0, 0], -torch.inf)
        only_padding[PADDING] = 0
        scores = torch.where(ended.unsqueeze(-1), only_padding, scores)
        total, chosen = (total.unsqueeze(-1) + scores).flatten(1).topk(width)
        rows = (first + chosen // scores.shape[-1]).flatten()
        newest = (chosen % scores.shape[-1]).flatten()
        state = {name: one[rows] for name, one in state.items()}
        texts = torch.cat([texts[rows], newest.unsqueeze(1)], dim=1)
        ended = ended.flatten()[rows].view(batch, width) | (newest.view(batch, width) == END)
        if ended.all():
            break
    lengths = (texts != PADDING).sum(1).view(batch, width).clamp(min=1)
    best = (total / lengths**length_penalty).argmax(1)
    return texts.view(batch, width, -1)[torch.arange(batch, device=device), best]


def expanded(memory: Any, state: State) -> State:
    """The memory as a part of the state, so that beams carry it."""
    return {"memory": memory.values, "mask": memory.mask, **state}

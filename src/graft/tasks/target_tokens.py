"""Texts that are to be written as token ids and back, whatever splits them into tokens.

The first three ids are the same for every decoder; the tokenizer's own follow, in its order.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graft.backbones.vocabulary import Vocabulary
from graft.heads.decoding import BEGIN, END, PADDING
from graft.inputs.text import Tokenizer

FIRST = 3  # the id of a tokenizer's token 0


class TargetTokens:
    """The ids `(B, T)` of texts for a decoder, and the texts of ids."""

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        """`max_length` is that of a text in tokens, without the one that ends it."""
        self.tokenizer: Any = tokenizer
        self.max_length = max_length
        self.size = tokenizer.size + FIRST
        unknown = getattr(tokenizer, "unknown", None)
        self._left_out = tokenizer.special - {unknown}  # tokens that frame a text of the tokenizer's own network
        # What is never written: padding, the beginning, and tokens that are no words
        self.unwritten = sorted({PADDING, BEGIN, *(token + FIRST for token in tokenizer.special)})

    def ids(self, texts: Sequence[str]) -> Tensor:
        """Ids `(B, T)` of texts, each with END behind it and PADDING behind that; longer ones are cut."""
        # A tokenizer may put two tokens of its own around a text, for which there has to be room.
        rows = self.tokenizer([*texts], self.max_length + 2)
        found = [[token + FIRST for token in row if token not in self._left_out][: self.max_length] for row, _ in rows]
        longest = max(map(len, found), default=0) + 1
        return torch.tensor([[*row, END] + [PADDING] * (longest - 1 - len(row)) for row in found], dtype=torch.int64)

    def texts(self, ids: Tensor) -> list[str]:
        """The texts of ids `(B, T)` up to their END."""
        rows = [row[: row.index(END)] if END in row else row for row in ids.tolist()]
        tokens = [[token - FIRST for token in row if token >= FIRST] for row in rows]
        if isinstance(self.tokenizer, Vocabulary):
            return [" ".join(self.tokenizer.word(token) for token in row) for row in tokens]
        return [text.strip() for text in self.tokenizer.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

"""What a text backbone wants to see, and from texts to token ids: once for a split, kept, padded by batch."""

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from graft.cache.disk import DiskCache, NoRoom
from graft.cache.key import cache_key, code_used
from graft.cache.ragged import MappedTokens, write_tokens
from graft.data.samples import Split, check_unchanged
from graft.inputs.base import Fields
from graft.notes import say_once


class Tokenizer(Protocol):
    """Splits texts into tokens; its repr is a hash of all that decides how."""

    size: int  # of the vocabulary
    padding: int  # the id that fills up shorter texts
    mask: int | None  # the id that stands for a hidden token
    special: frozenset[int]  # ids that are no tokens of a text

    def __call__(self, texts: Sequence[str], max_length: int) -> list[tuple[list[int], bool]]:
        """Token ids of each text, at least one, and whether the text was longer than `max_length` tokens."""


@dataclass(frozen=True)
class TextSpec:
    """A tokenizer, and how many tokens of a text a backbone takes."""

    tokenizer: Tokenizer
    max_length: int

    def __str__(self) -> str:
        return f"up to {self.max_length:,} tokens"

    def transform(self, augment: str = "none", shift: str | None = None) -> Any:
        """Texts as this network wants them."""

        return TextTransform(self, augment, shift)


CHUNK = 1000  # texts that are split into tokens at a time
CUT = "cut.json"  # how many texts of a split were too long
SAMPLED = 2000  # texts of a split whose tokens are looked at for unknown ones
MANY_UNKNOWN = 0.3  # share of a split's tokens from which on unknown ones are worth a line
BYTES = 4  # of a token id on disk


class TokenLists:
    """Token ids of some texts in memory; indexing by `(B,)` gives a list of `(L,)`."""

    def __init__(self, sequences: Sequence[list[int]]) -> None:
        self.sequences = [torch.tensor(sequence, dtype=torch.int64) for sequence in sequences]
        self.lengths = torch.tensor([len(sequence) for sequence in self.sequences], dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, indices: Tensor) -> list[Tensor]:
        return [self.sequences[index] for index in indices.tolist()]


class TextTransform:
    """Texts to `input_ids` and `attention_mask`, both `(B, L)` with the batch's longest L; nothing is random."""

    augment = None

    def __init__(self, spec: "TextSpec", augment: str = "none", shift: str | None = None) -> None:
        check_unchanged("texts", augment, shift)
        self.spec = spec

    @property
    def key(self) -> str:
        """The tokenizer and the longest length in words."""
        return repr(self.spec)

    def prepare(self, split: Split, cache: DiskCache | None) -> TokenLists | MappedTokens:
        """The split's token ids, from the cache where they are there."""
        code = code_used(__name__, self.spec.tokenizer)
        key = cache_key({"split": split.fingerprint, "tokens": self.key, "code": code})
        if cache is not None:
            make = functools.partial(self._write, split)
            try:
                kept, cut = cache.get(key, lambda: BYTES * len(split) * self.spec.max_length, make, read_tokens)
                self._say(cut, kept, len(split))
                return kept
            except (NoRoom, OSError) as error:
                say_once(f"Texts are split into tokens in every run, because they cannot be kept: {error}.")
        sequences, cut = self._tokens(split)
        tokens = TokenLists(sequences)
        self._say(cut, tokens, len(split))
        return tokens

    def of_batch(self, split: Split) -> TokenLists:
        """The token ids of a batch's texts, of which nothing is kept."""
        return TokenLists(self._tokens(split)[0])

    def _write(self, split: Split, folder: Path) -> None:
        cut = 0

        def batches() -> Iterator[list[list[int]]]:
            nonlocal cut
            for sequences, too_long in self._chunks(split):
                cut += too_long
                yield sequences

        write_tokens(folder, batches())
        (folder / CUT).write_text(json.dumps(cut))

    def _tokens(self, split: Split) -> tuple[list[list[int]], int]:
        """Token ids of every text, and how many texts were too long."""
        found = [*self._chunks(split)]
        return [ids for sequences, _ in found for ids in sequences], sum(too_long for _, too_long in found)

    def _chunks(self, split: Split) -> Iterator[tuple[list[list[int]], int]]:
        """Token ids of CHUNK texts, and how many of those were too long."""
        for chunk in chunks(split.inputs):
            found = self.spec.tokenizer(chunk, self.spec.max_length)
            yield [ids for ids, _ in found], sum(too_long for _, too_long in found)

    def _say(self, cut: int, tokens: TokenLists | MappedTokens, texts: int) -> None:
        if cut:
            say_once(
                f"{cut:,} of {texts:,} texts ({cut / texts:.2%}) have more than "
                f"backbone.max_length={self.spec.max_length} tokens: what comes after them is left out"
            )
        tokenizer: Any = self.spec.tokenizer  # one with unknown tokens has advice on them
        unknown = getattr(tokenizer, "unknown", None)
        if unknown is None or not texts:
            return
        step = max(texts // SAMPLED, 1)
        sample = torch.cat(tokens[torch.arange(0, texts, step)])
        share = float((sample == unknown).float().mean())
        if share > MANY_UNKNOWN:
            say_once(
                f"{share:.0%} of the tokens of {texts:,} texts are unknown to the vocabulary, and all alike to the "
                f"network. {tokenizer.advice}"
            )

    def collate(self, sequences: Sequence[Tensor]) -> Fields:
        """Pad ids `(L,)` to the longest of the batch; the mask is 1 exactly on the tokens of a text."""
        ids = pad_sequence([*sequences], batch_first=True, padding_value=self.spec.tokenizer.padding).long()
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        return Fields({"input_ids": ids, "attention_mask": mask})


def read_tokens(folder: Path) -> tuple[MappedTokens, int]:
    """Token ids that are kept in a folder, and how many of the texts were too long."""
    return MappedTokens(folder), json.loads((folder / CUT).read_text())


def chunks(texts: Any) -> Iterator[list[str]]:
    """All texts, CHUNK at a time."""
    for start in range(0, len(texts), CHUNK):
        yield [texts[index] for index in range(start, min(start + CHUNK, len(texts)))]

"""Words as tokens, with a vocabulary made from the training texts: what a network from scratch starts with."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from graft.backbones.tabular import hash_of

WORD = re.compile(r"\w+(?:'\w+)*|[^\w\s]")  # words with their apostrophes, and single punctuation marks
PADDING, UNKNOWN = 0, 1


def words_of(text: str) -> list[str]:
    """The text's words and punctuation in small letters."""
    return WORD.findall(text.lower())


class Vocabulary:
    """A tokenizer whose ids are the most frequent words; all others share one id."""

    padding = PADDING

    def __init__(self, texts: Iterable[str], max_words: int = 20_000, min_count: int = 1) -> None:
        """Of these texts, the `max_words` words that occur most, and at least `min_count` times."""
        counts = Counter(word for text in texts for word in words_of(text))
        by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        self.words = [word for word, count in by_count[:max_words] if count >= min_count]
        self.size = len(self.words) + 2
        self._ids = {word: number for number, word in enumerate(self.words, start=2)}

    def __call__(self, texts: Sequence[str], max_length: int) -> list[tuple[list[int], bool]]:
        """Ids of each text's first words, and whether there are more of them."""
        found = [[self._ids.get(word, UNKNOWN) for word in words_of(text)] or [UNKNOWN] for text in texts]
        return [(ids[:max_length], len(ids) > max_length) for ids in found]

    @property
    def hashes(self) -> Tensor:
        """A number `(size,)` for each id, which stands for its word in every vocabulary."""
        return torch.tensor([PADDING, UNKNOWN, *map(hash_of, self.words)], dtype=torch.int64)

    def __repr__(self) -> str:
        content = "\n".join([WORD.pattern, *self.words]).encode()
        return f"Vocabulary({self.size}, {hashlib.sha256(content).hexdigest()[:16]})"

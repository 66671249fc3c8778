"""Words as tokens, with a vocabulary made from the training texts: what a network from scratch starts with."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from graft.backbones.tabular import hash_of

# Scripts that put no spaces between words, of which a character is a token: Thai, Lao, Myanmar, Khmer, Kana, Han.
# Marks above and below a letter belong to it.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\ua9e0-\ua9ff\uaa60-\uaa7f\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
MARK = (
    "\u0300-\u036f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b4-\u17d3"
    "\u3099\u309a\u30fc"
)
LETTER = f"(?:(?![{UNSPACED}])\\w)"
# Words with their apostrophes, single characters of scripts without spaces, and single punctuation marks.
WORD = re.compile(rf"[{UNSPACED}][{MARK}]*|{LETTER}+(?:'{LETTER}+)*|[^\w\s]")
PADDING, UNKNOWN = 0, 1


def words_of(text: str) -> list[str]:
    """The text's words and punctuation in small letters; characters where a script has no spaces."""
    return WORD.findall(text.lower())


class Vocabulary:
    """A tokenizer whose ids are the most frequent words; all others share one id."""

    padding = PADDING
    unknown = UNKNOWN
    mask: int | None = UNKNOWN  # words have no token of their own for a hidden one
    special = frozenset({PADDING, UNKNOWN})
    advice = (
        "Keep more words (backbone.max_words, backbone.min_count=1), give more training texts, or take a pretrained "
        "tokenizer (backbone=bert)."
    )

    def __init__(self, texts: Iterable[str], max_words: int = 20_000, min_count: int = 1) -> None:
        """Of these texts, the `max_words` words that occur most, and at least `min_count` times."""
        counts = Counter(word for text in texts for word in words_of(text))
        by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        self._set([word for word, count in by_count[:max_words] if count >= min_count])

    @classmethod
    def of_words(cls, words: Sequence[str]) -> "Vocabulary":
        """One of exactly these words, in this order."""
        vocabulary = cls(())
        vocabulary._set([*words])
        return vocabulary

    def _set(self, words: list[str]) -> None:
        self.words = words
        self.size = len(words) + 2
        self._ids = {word: number for number, word in enumerate(words, start=2)}

    def __call__(self, texts: Sequence[str], max_length: int) -> list[tuple[list[int], bool]]:
        """Ids of each text's first words, and whether there are more of them."""
        found = [[self._ids.get(word, UNKNOWN) for word in words_of(text)] or [UNKNOWN] for text in texts]
        return [(ids[:max_length], len(ids) > max_length) for ids in found]

    def word(self, token: int) -> str:
        """The word of an id; empty for one that stands for none."""
        return self.words[token - 2] if token >= 2 else ""

    @property
    def hashes(self) -> Tensor:
        """A number `(size,)` for each id, which stands for its word in every vocabulary."""
        return torch.tensor([PADDING, UNKNOWN, *map(hash_of, self.words)], dtype=torch.int64)

    def __repr__(self) -> str:
        content = "\n".join([WORD.pattern, *self.words]).encode()
        return f"Vocabulary({self.size}, {hashlib.sha256(content).hexdigest()[:16]})"

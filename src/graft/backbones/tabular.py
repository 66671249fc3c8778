"""Backbones for tables: each column has its own weights, under its name, so that tables can share some of them."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.backbones.base import COLUMNS, Backbone, Stage
from graft.config.types import Auto, Count, FractionBelowOne
from graft.errors import GraftError
from graft.inputs.base import Fields
from graft.inputs.columns import FIRST, NUMERIC, Column, Columns
from graft.inputs.table import TableSpec

MISSING_NUMBER = 1  # row of a numeric column's weights that a missing number adds


class TableBackbone(Backbone):
    """`Fields` of numbers `(B, n)`, missing `(B, n)` and codes `(B, k)` to features `(B, D)`."""

    modality = "table"
    named_inputs = True

    def __init__(self, name: str, columns: Columns, network: nn.Module, feature_size: int, parts: list[str]) -> None:
        """`parts` of the network, in their order, are the stages."""
        stages = [Stage(part, (f"network.{part}",)) for part in parts]
        super().__init__(name, network, feature_size=feature_size, stages=stages)
        self.columns = columns

    @property
    def input_spec(self) -> TableSpec:
        """The columns."""
        return TableSpec(self.columns)

    def example_inputs(self, samples: int = 2) -> Fields:
        """Random rows, always the same ones."""
        random = torch.Generator().manual_seed(0)
        numbers = torch.randn(samples, len(self.columns.numeric), generator=random)
        sizes = [FIRST + len(column.categories) for column in self.columns.categorical]
        columns = [torch.randint(size, (samples,), generator=random) for size in sizes]
        codes = torch.stack(columns, dim=1) if columns else torch.zeros(samples, 0, dtype=torch.int64)
        like = next(self.parameters())
        fields = {"numbers": numbers.to(like), "missing": torch.zeros_like(numbers).to(like)}
        return Fields({**fields, "codes": codes.to(like.device)})

    def save_files(self, folder: Path) -> dict[str, str]:
        """The columns with what was fitted on training rows."""
        (folder / COLUMNS).write_text(self.columns.to_json(), "utf-8")
        return {"columns": COLUMNS}

    def not_learned_from(self, arguments: Mapping[str, Any]) -> list[str]:
        """Weights of columns that another table lacks."""
        theirs = {column.key for column in arguments["columns"].all}
        new = {column.key for column in self.columns.all} - theirs
        return [name for name, _ in self.network.named_parameters() if new.intersection(name.split("."))]

    def convert(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file's tensors with each column's categories in the order of this table; new ones stay as they are."""
        own = self.network.state_dict()
        converted = dict(tensors)
        for name, categories in own.items():
            weight = f"{name.removesuffix('.categories')}.weight"
            if name.endswith(".categories") and name in tensors and weight in tensors:
                converted[name] = categories
                if own[weight].shape[1:] == tensors[weight].shape[1:]:
                    converted[weight] = shared_rows(own[weight], categories, tensors[weight], tensors[name])
        return converted


def shared_rows(own: Tensor, own_categories: Tensor, theirs: Tensor, their_categories: Tensor) -> Tensor:
    """Weights `(2 + K, D)` with a file's rows for missing, unknown and the categories that both have."""
    indices = {category: index for index, category in enumerate(their_categories.tolist(), start=FIRST)}
    rows = own.clone()
    rows[:FIRST] = theirs[:FIRST]
    for index, category in enumerate(own_categories.tolist(), start=FIRST):
        if category in indices:
            rows[index] = theirs[indices[category]]
    return rows


class ColumnModule(nn.Module):
    """Weights of one column, which `ColumnTokens` finds in a state dict."""

    tensors: dict[str, Tensor] | None = None  # to be loaded next

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], *arguments: Any) -> None:
        found, self.tensors = self.tensors, None
        super()._load_from_state_dict(state_dict if found is None else found, *arguments)


class NumericColumn(ColumnModule):
    """Weights `(2, D)`: what a number is multiplied with, and what a missing one adds."""

    def __init__(self, size: int, bound: float, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(size).uniform_(-bound, bound)) if bias else None
        with torch.no_grad():
            self.weight[MISSING_NUMBER] = 0  # where training never misses one, nothing is known


class CategoricalColumn(ColumnModule):
    """Weights `(2 + K, D)`: of a missing value, of an unknown category, and of each known one.

    A hash of each category lies beside them, so that another table can find those that it shares.
    """

    def __init__(self, column: Column, size: int, bound: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(FIRST + len(column.categories), size).uniform_(-bound, bound))
        self.register_buffer("categories", torch.tensor([*map(hash_of, column.categories)], dtype=torch.int64))
        with torch.no_grad():
            self.weight[:FIRST] = 0  # neither may occur in training


def hash_of(name: str) -> int:
    """A number that stands for a category or a word in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")


class ColumnTokens(nn.Module):
    """A token of `size` numbers for each column: `(B, columns, size)`, numeric columns first."""

    _first: Tensor

    def __init__(self, columns: Columns, size: int, bound: float, bias: bool = True) -> None:
        super().__init__()
        for column in (*columns.numeric, *columns.categorical):
            module = (
                NumericColumn(size, bound, bias) if column.kind == NUMERIC else CategoricalColumn(column, size, bound)
            )
            self.add_module(column.key, module)
        self._numeric = [column.key for column in columns.numeric]
        self._categorical = [column.key for column in columns.categorical]
        sizes = [0, *(FIRST + len(column.categories) for column in columns.categorical)]
        self.register_buffer("_first", torch.tensor(sizes).cumsum(0)[:-1], persistent=False)  # row of each column

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: Any) -> None:
        """Hand each column its tensors: PyTorch would search all of them for each column, 100 s for 10,000 columns."""
        for name in [name for name in state_dict if name.startswith(prefix)]:
            column = self._modules.get(name[len(prefix) :].rpartition(".")[0])
            if isinstance(column, ColumnModule):
                column.tensors = {**(column.tensors or {}), name: state_dict.pop(name)}
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def forward(self, fields: Fields) -> Tensor:
        """Tokens of rows."""
        tokens = []
        if self._numeric:
            weight, missing = self.weights_of_numbers()
            bias = torch.stack([cast(Tensor, self.get_submodule(key).bias) for key in self._numeric])
            tokens.append(fields["numbers"].unsqueeze(-1) * weight + fields["missing"].unsqueeze(-1) * missing + bias)
        if self._categorical:
            tokens.append(F.embedding(fields["codes"] + self._first, self.weights_of_categories()))
        return torch.cat(tokens, dim=1)

    def weights_of_numbers(self) -> tuple[Tensor, Tensor]:
        """Weights of all numeric columns, `(n, D)`, for numbers and for missing ones."""
        weight, missing = torch.stack([self._weight(key) for key in self._numeric], dim=1).unbind()
        return weight, missing

    def weights_of_categories(self) -> Tensor:
        """Weights of all categories of all columns."""
        return torch.cat([self._weight(key) for key in self._categorical])

    def _weight(self, key: str) -> Tensor:
        return cast(Tensor, self.get_submodule(key).weight)


class ColumnSum(ColumnTokens):
    """The sum of a table's tokens, `(B, size)`: a linear layer on numbers and on categories one by one."""

    def __init__(self, columns: Columns, size: int) -> None:
        super().__init__(columns, size, bound=max(1, len(columns.all)) ** -0.5, bias=False)
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, fields: Fields) -> Tensor:
        """Sums of rows, without their tokens in memory."""
        total = self.bias.expand(len(fields), -1)
        if self._numeric:
            weight, missing = self.weights_of_numbers()
            total = total + fields["numbers"] @ weight + fields["missing"] @ missing
        if self._categorical:
            total = total + F.embedding_bag(fields["codes"] + self._first, self.weights_of_categories(), mode="sum")
        return total


def mlp(
    columns: Auto | Columns,
    name: str = "mlp",
    width: Count = 128,
    blocks: Count = 2,
    dropout: FractionBelowOne = 0.1,
) -> TableBackbone:
    """A multilayer perceptron: the columns' embeddings summed, then `blocks` layers of `width` features."""

    assert isinstance(columns, Columns)  # `auto` is the data's

    def block() -> nn.Module:
        return nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width))

    layers = {f"block{number}": block() for number in range(1, blocks + 1)}
    network = nn.Sequential(OrderedDict(columns=ColumnSum(columns, width), **layers, output=nn.ReLU()))
    return TableBackbone(name, columns, network, width, ["columns", *layers])


class Tokens(nn.Module):
    """The columns' tokens behind a class token, `(B, 1 + columns, size)`."""

    def __init__(self, columns: Columns, size: int) -> None:
        super().__init__()
        self.columns = ColumnTokens(columns, size, bound=size**-0.5)
        self.class_token = nn.Parameter(torch.empty(1, 1, size).uniform_(-(size**-0.5), size**-0.5))

    def forward(self, fields: Fields) -> Tensor:
        """Tokens of rows."""
        tokens = self.columns(fields)
        return torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)


class Attention(nn.Module):
    """Attention of tokens `(B, L, D)` to each other, of plain linear layers, which LoRA can reach."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(size, size) for _ in range(4))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens that have looked at the others."""
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in self.projections()
        )
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=self.dropout if self.training else 0.0)
        return self.output(attended.transpose(1, 2).flatten(2))

    def projections(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Query, key and value."""
        return self.query, self.key, self.value


class ReGLU(nn.Module):
    """The first half of the values `(..., 2 D)` where the second is above zero, times it."""

    def forward(self, values: Tensor) -> Tensor:
        """Values `(..., D)`."""
        first, gate = values.chunk(2, dim=-1)
        return first * F.relu(gate)


class Block(nn.Module):
    """Attention and a feed-forward part, each on normalised tokens `(B, L, D)` and added to them.

    The first block does without the first normalisation, as the paper found better.
    """

    def __init__(self, size: int, heads: int, dropout: float, first: bool) -> None:
        super().__init__()
        hidden = size * 4 // 3
        self.attention_norm = nn.Identity() if first else nn.LayerNorm(size)
        self.attention = Attention(size, heads, dropout)
        self.feed_norm = nn.LayerNorm(size)
        self.feed = nn.Sequential(nn.Linear(size, 2 * hidden), ReGLU(), nn.Dropout(dropout), nn.Linear(hidden, size))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens after the block."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.feed(self.feed_norm(tokens))


class ClassToken(nn.Module):
    """The class token `(B, D)` of tokens `(B, L, D)`, normalised: the features."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Features of rows."""
        return F.relu(self.norm(tokens[:, 0]))


def ft_transformer(
    columns: Auto | Columns,
    name: str = "ft_transformer",
    width: Count = 64,
    blocks: Count = 3,
    heads: Count = 8,
    dropout: FractionBelowOne = 0.1,
) -> TableBackbone:
    """A transformer over a token for each column and a class token (Gorishniy et al., NeurIPS 2021)."""
    assert isinstance(columns, Columns)  # `auto` is the data's
    if width % heads:
        raise GraftError(f"backbone.width={width}: must be a multiple of backbone.heads={heads}.")
    layers = {f"block{number}": Block(width, heads, dropout, number == 1) for number in range(1, blocks + 1)}
    network = nn.Sequential(OrderedDict(tokens=Tokens(columns, width), **layers, output=ClassToken(width)))
    return TableBackbone(name, columns, network, width, ["tokens", *layers, "output"])

"""Backbones for tables: each column has its own weights, beside its name, so that tables can share some of them."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.backbones.base import COLUMNS, Backbone, Stage
from graft.config.types import Auto, Count, FractionBelowOne
from graft.errors import GraftError
from graft.inputs.base import Fields
from graft.inputs.columns import CATEGORICAL, FIRST, MISSING, NUMERIC, UNKNOWN, Column, Columns
from graft.inputs.table import TableSpec


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

    def learned_from(
        self, arguments: Mapping[str, Any], tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], list[str]]:
        """The tensors with this network's own weights of columns that the other table lacks, and these columns."""
        theirs = {column.key for column in arguments["columns"].all}
        learned, new = dict(tensors), []
        for name, rows in self._rows():
            lacking = [key not in theirs for key in rows.keys]
            new += names_of(name, rows, lacking)
            own = torch.tensor(lacking).repeat_interleave(rows.sizes.cpu()).unsqueeze(1)
            for key, parameter in rows.named_parameters(prefix=f"network.{name}"):
                learned[key] = torch.where(own, parameter.detach().to(tensors[key]), tensors[key])
        return learned, new

    def convert(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file's tensors with the rows of the columns and categories of this table; new ones stay as they are.

        GraftError for a file with tensors of single columns.
        """
        converted = dict(tensors)
        for name, rows in self._rows():
            refuse_single_columns(name.rpartition(".")[0], tensors)
            theirs = {key: converted.pop(f"{name}.{key}") for key in rows.state_dict() if f"{name}.{key}" in tensors}
            converted |= {f"{name}.{key}": value for key, value in rows.shared(theirs).items()}
        return converted

    def inputs_missing_in(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """The columns that a file's tensors lack."""
        missing = []
        for name, rows in self._rows():
            theirs = set(tensors[f"{name}.names"].tolist()) if f"{name}.names" in tensors else set()
            missing += names_of(name, rows, [first not in theirs for first in rows.names[rows.first].tolist()])
        return missing

    def _rows(self) -> list[tuple[str, "ColumnRows"]]:
        """The weights of columns by their name in the network."""
        return [(name, module) for name, module in self.network.named_modules() if isinstance(module, ColumnRows)]


def names_of(name: str, rows: "ColumnRows", chosen: Sequence[bool]) -> list[str]:
    """Names of the chosen columns of a module: `columns.numeric_age` of `columns.numeric`."""
    module = name.rpartition(".")[0]
    return [f"{module}.{key}" for key, one in zip(rows.keys, chosen, strict=True) if one]


def refuse_single_columns(module: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise GraftError where a file has tensors of single columns, as the first runs of Graft wrote them."""
    for name in tensors:
        if name.startswith((f"{module}.{NUMERIC}_", f"{module}.{CATEGORICAL}_")):
            raise GraftError(
                f"backbone.weights: the file holds {name}, a tensor of one column, as an older Graft wrote them; now "
                "all columns lie in one tensor. Run the training that wrote the file again, and use its new weights."
            )


class ColumnRows(nn.Module):
    """Weights of columns, stacked: a module for each would cost seconds where a table has thousands.

    A hash beside each row names its column and category, so that another table can find those that it shares.
    """

    names: Tensor  # `(rows,)`, buffers
    sizes: Tensor  # `(columns,)`, the rows of each column
    first: Tensor  # `(columns,)`, the first of them

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.keys = [column.key for column in columns]
        names = [row_names(column) for column in columns]
        sizes = torch.tensor([len(of_column) for of_column in names])
        self.register_buffer("names", torch.tensor([name for of_column in names for name in of_column]))
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("first", sizes.cumsum(0) - sizes, persistent=False)

    def shared(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict with a file's rows where names agree; what the file has where it has no such row or no room.

        Never another table's names: rows of a file whose widths differ are left to the report of what does not fit.
        """
        own = self.state_dict()
        if any(key not in theirs or theirs[key].shape[1:] != value.shape[1:] for key, value in own.items()):
            return {key: value for key, value in theirs.items() if key != "names"}
        indices = {name: index for index, name in enumerate(theirs["names"].tolist())}
        pairs = [(row, indices[name]) for row, name in enumerate(own["names"].tolist()) if name in indices]
        if not pairs:
            return {}
        to, of = torch.tensor(pairs).unbind(1)
        rows = {key: value.clone() for key, value in own.items()}
        for key, value in rows.items():
            value[to] = theirs[key][of].to(value)
        return rows


def row_names(column: Column) -> list[int]:
    """Names of a column's rows: one of numbers; of a missing value, an unknown category, and each known one."""
    rows = [None] if column.kind == NUMERIC else [MISSING, UNKNOWN, *column.categories]
    return [hash_of(repr((column.key, row))) for row in rows]


def hash_of(name: str) -> int:
    """A number that stands for a column, a category or a word in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")


class NumericColumns(ColumnRows):
    """Weights `(n, D)`: what a number is multiplied with, what a missing one adds, and what every row of data adds."""

    def __init__(self, columns: Sequence[Column], size: int, bound: float, bias: bool) -> None:
        super().__init__(columns)
        drawn = torch.empty(len(columns), 3 if bias else 2, size).uniform_(-bound, bound)
        self.weight = nn.Parameter(drawn[:, 0].clone())
        self.missing = nn.Parameter(torch.zeros_like(self.weight))  # where training never misses one, nothing is known
        self.bias = nn.Parameter(drawn[:, 2].clone()) if bias else None


class CategoricalColumns(ColumnRows):
    """Weights `(rows, D)`: for each column those of a missing value, of an unknown category, and of each known one."""

    def __init__(self, columns: Sequence[Column], size: int, bound: float) -> None:
        super().__init__(columns)
        self.weight = nn.Parameter(torch.empty(len(self.names), size).uniform_(-bound, bound))
        with torch.no_grad():
            self.weight[self.first + MISSING] = self.weight[self.first + UNKNOWN] = 0  # neither may occur in training


class ColumnTokens(nn.Module):
    """A token of `size` numbers for each column: `(B, columns, size)`, numeric columns first."""

    def __init__(self, columns: Columns, size: int, bound: float, bias: bool = True) -> None:
        super().__init__()
        self.numeric = NumericColumns(columns.numeric, size, bound, bias) if columns.numeric else None
        self.categorical = CategoricalColumns(columns.categorical, size, bound) if columns.categorical else None

    def forward(self, fields: Fields) -> Tensor:
        """Tokens of rows."""
        tokens = []
        if self.numeric is not None:
            numbers, missing = fields["numbers"].unsqueeze(-1), fields["missing"].unsqueeze(-1)
            values = numbers * self.numeric.weight + missing * self.numeric.missing
            tokens.append(values if self.numeric.bias is None else values + self.numeric.bias)
        if self.categorical is not None:
            tokens.append(F.embedding(fields["codes"] + self.categorical.first, self.categorical.weight))
        return torch.cat(tokens, dim=1)


class ColumnSum(ColumnTokens):
    """The sum of a table's tokens, `(B, size)`: a linear layer on numbers and on categories one by one."""

    def __init__(self, columns: Columns, size: int) -> None:
        super().__init__(columns, size, bound=max(1, len(columns.all)) ** -0.5, bias=False)
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, fields: Fields) -> Tensor:
        """Sums of rows, without their tokens in memory."""
        total = self.bias.expand(fields["numbers"].shape[0], -1)
        if self.numeric is not None:
            total = total + fields["numbers"] @ self.numeric.weight + fields["missing"] @ self.numeric.missing
        if self.categorical is not None:
            codes = fields["codes"] + self.categorical.first
            total = total + F.embedding_bag(codes, self.categorical.weight, mode="sum")
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
        return torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)


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

"""What a baseline sees of a sample: a table's columns, a text's words, an image's pixels, or a backbone's features."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graft.backbones.base import Backbone
from graft.baselines.base import Rows
from graft.baselines.boosting import MAX_CATEGORIES
from graft.cache.disk import DiskCache
from graft.cache.extract import extract
from graft.data.module import TransferDataModule
from graft.data.samples import Split, rows_of
from graft.inputs.columns import FIRST, MISSING, Column, Columns
from graft.inputs.image.transform import ImageSpec
from graft.inputs.sequence import Sequences
from graft.inputs.table import TableRows, TableTransform

WORDS = 20_000  # and pairs of words, the most frequent ones
VALUES = 1024  # of an image, which is made smaller where it has more
BATCH = 1000  # images at a time


@dataclass(frozen=True)
class Named:
    """A split with the domain and the part of it that it is, or a subset of."""

    domain: str
    name: str
    split: Split


class Representation:
    """Rows `(N, D)` of splits. Whatever is fitted, is fitted on the training splits alone."""

    name: str
    title: str  # for people
    metric = "euclidean"  # by which rows are near each other, or cosine
    sparse = False  # whether rows are a scipy matrix

    def key(self) -> str:
        """All that decides the rows, beside the splits and the code."""
        return ""

    def of(self, one: Named) -> Rows:
        """Those of one split."""
        raise NotImplementedError

    def rows(self, train: Sequence[Named], others: Sequence[Named]) -> list[Rows]:
        """Those of the training splits one below the other, then those of each other split."""
        parts = [self.of(one) for one in train]
        return [np.concatenate(parts) if len(parts) > 1 else parts[0], *map(self.of, others)]


class RawColumns(Representation):
    """A table's numbers, standardised within their domain, the median where one is missing, and categories one-hot.

    Columns of more than MAX_CATEGORIES categories are left out.
    """

    name, title = "columns", "raw columns"

    def __init__(self, columns: Columns) -> None:
        """The target's columns; what a source has beside them is left out, what it lacks is missing there."""
        self.columns = columns

    def key(self) -> str:
        """The columns."""
        return repr(self.columns)

    def of(self, one: Named) -> Rows:
        """Float rows `(N, D)` without gaps."""
        fields = TableTransform(self.columns).collate(self.table(one.split)).tensors
        coded = [
            F.one_hot(codes, FIRST + len(column.categories)).float()
            for codes, column in zip(fields["codes"].T, self.columns.categorical, strict=True)
            if len(column.categories) <= MAX_CATEGORIES
        ]
        return torch.cat([fields["numbers"], fields["missing"], *coded], dim=1).numpy()

    def table(self, split: Split) -> TableRows:
        """The rows before gaps are filled."""
        return in_columns(split, self.columns)


class SharedColumns(RawColumns):
    """The columns that both tables have, with numbers of both in the target's units: what shifts between them stays."""

    title = "shared columns"

    def table(self, split: Split) -> TableRows:
        """The rows before gaps are filled."""
        rows = in_columns(split, self.columns)
        own = {column.key: column for column in rows_of(split).columns.numeric}
        mean, std = moments([own[column.key] for column in self.columns.numeric])
        target_mean, target_std = moments(self.columns.numeric)
        return replace(rows, numbers=((rows.numbers * std + mean - target_mean) / target_std).float())


class TreeColumns(Representation):
    """A table's numbers and codes as trees take them, NaN where one is missing."""

    name, title = "trees", "raw columns"

    def __init__(self, columns: Columns) -> None:
        """The target's columns, as for RawColumns."""
        self.columns = columns

    @property
    def categories(self) -> list[int | None]:
        """How many codes each column has; None for numbers."""
        codes: list[int | None] = [FIRST + len(column.categories) for column in self.columns.categorical]
        return [None] * len(self.columns.numeric) + codes

    def key(self) -> str:
        """The columns."""
        return repr(self.columns)

    def of(self, one: Named) -> Rows:
        """Float rows `(N, D)`, numbers first."""
        rows = in_columns(one.split, self.columns)
        codes = torch.where(rows.codes == MISSING, torch.nan, rows.codes - 1.0)
        return torch.cat([rows.numbers, codes], dim=1).numpy()


def moments(columns: Sequence[Column]) -> tuple[Tensor, Tensor]:
    """Means and standard deviations `(n,)` of numeric columns' training values, in double precision."""
    both = torch.tensor([(column.mean, column.std) for column in columns], dtype=torch.double).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def in_columns(split: Split, columns: Columns) -> TableRows:
    """A split's rows in other columns: those that it lacks are missing in every row."""
    rows = TableTransform(columns).prepare(split, None)
    known = {column.key for column in rows_of(split).columns.numeric}
    lacking = [place for place, column in enumerate(columns.numeric) if column.key not in known]
    rows.numbers[:, lacking] = torch.nan
    return rows


class BagOfWords(Representation):
    """TF-IDF of a text's words and pairs of words."""

    name, title, metric, sparse = "words", "words", "cosine", True

    def rows(self, train: Sequence[Named], others: Sequence[Named]) -> list[Rows]:
        """Sparse rows of norm 1; the words are those of the training texts."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        words = TfidfVectorizer(
            sublinear_tf=True, ngram_range=(1, 2), max_features=WORDS, token_pattern=r"\w+", dtype=np.float64
        )
        texts = [text for one in train for text in texts_of(one.split)]
        try:
            return [words.fit_transform(texts), *(words.transform(texts_of(one.split)) for one in others)]
        except ValueError:  # no text has a word
            return [np.zeros((size, 1)) for size in (len(texts), *(len(one.split) for one in others))]


def texts_of(split: Split) -> list[str]:
    """All texts of a split."""
    inputs: Any = split.inputs
    return [str(inputs[index]) for index in range(len(inputs))]


class Pixels(Representation):
    """An image's pixels, made smaller where there are more than VALUES."""

    name, title = "pixels", "pixels"

    def __init__(self, channels: int, shape: tuple[int, int], cache: DiskCache | None) -> None:
        """The target's channels, and height and width of one of its images."""
        factor = min(1.0, math.sqrt(VALUES / (channels * shape[0] * shape[1])))
        size = max(1, int(factor * shape[0])), max(1, int(factor * shape[1]))
        self.spec = ImageSpec(channels, size, (0.0,) * channels, (1.0,) * channels)
        self.cache = cache

    def key(self) -> str:
        """Channels and size."""
        return repr(self.spec)

    def of(self, one: Named) -> Rows:
        """Values in [0, 1], `(N, channels * height * width)`."""
        transform = self.spec.transform()
        images = transform.prepare(one.split, self.cache)
        batches = [transform.collate(images[part]).flatten(1) for part in torch.arange(len(images)).split(BATCH)]
        return torch.cat(batches or [torch.zeros(0, self.spec.channels * math.prod(self.spec.size))]).numpy()


class StepSummaries(Representation):
    """Mean, deviation, lowest, highest, first and last value of each channel of a sequence, and its length."""

    name, title = "summaries", "summaries of each channel"

    def of(self, one: Named) -> Rows:
        """Float rows `(N, 6 D + 1)`."""
        rows: Sequences = rows_of(one.split)
        mask, values, lengths = rows.mask.bool().unsqueeze(-1), rows.values, rows.lengths.unsqueeze(-1)
        mean = (values * mask).sum(1) / lengths
        deviation = (((values - mean.unsqueeze(1)) * mask).square().sum(1) / lengths).sqrt()
        lowest, highest = values.masked_fill(~mask, math.inf).amin(1), values.masked_fill(~mask, -math.inf).amax(1)
        last = values[torch.arange(len(values)), rows.lengths - 1]
        length = lengths.float() / max(1, values.shape[1])
        return torch.cat([mean, deviation, lowest, highest, values[:, 0], last, length], dim=1).numpy()


class FrozenFeatures(Representation):
    """What a backbone gives before it is trained."""

    name, title, metric = "features", "frozen features", "cosine"

    def __init__(self, backbone: Backbone, weights: str, data: TransferDataModule, cache: DiskCache) -> None:
        """`weights` is a hash of the backbone's weights, `data` knows its input."""
        self.backbone, self.weights, self.data, self.cache = backbone, weights, data, cache
        self._found: dict[str, np.ndarray] = {}  # by the split's fingerprint

    def key(self) -> str:
        """The network and its weights."""
        backbone = self.backbone
        return repr([backbone.name, repr(backbone), repr(backbone.input_spec), self.weights])

    def of(self, one: Named) -> Rows:
        """Features `(N, D)`; numbers that are not finite become 0."""
        if not len(one.split):
            return np.zeros((0, self.backbone.feature_size))
        if one.split.fingerprint not in self._found:
            data = copy.copy(self.data)
            domain = replace(data.domains[one.domain], **{one.name: one.split})  # type: ignore[arg-type]
            data.domains = {**data.domains, one.domain: domain}
            found = extract(self.backbone, data, one.domain, one.name, self.cache).features.float().cpu().numpy()
            self._found[one.split.fingerprint] = np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)
        return self._found[one.split.fingerprint]


class OfField(Representation):
    """What another representation sees of one modality of samples that have several."""

    def __init__(self, field: str, of: Representation) -> None:
        self.field, self.inner = field, of
        self.name, self.title, self.metric, self.sparse = of.name, of.title, of.metric, of.sparse

    def key(self) -> str:
        """That of the other."""
        return self.inner.key()

    def rows(self, train: Sequence[Named], others: Sequence[Named]) -> list[Rows]:
        """Those of the other."""
        return self.inner.rows([self._of_field(one) for one in train], [self._of_field(one) for one in others])

    def _of_field(self, one: Named) -> Named:
        return replace(one, split=replace(one.split, inputs=rows_of(one.split).fields[self.field]))


class SideBySide(Representation):
    """Rows of several representations, one beside the other, each divided by the mean norm of its training rows."""

    def __init__(self, inner: Sequence[Representation]) -> None:
        self.inner = inner
        self.name, self.title = (" + ".join(getattr(one, of) for one in inner) for of in ("name", "title"))
        self.sparse = any(one.sparse for one in inner)
        self.metric = "cosine" if self.sparse else "euclidean"

    def key(self) -> str:
        """Those of all of them."""
        return repr([one.key() for one in self.inner])

    def rows(self, train: Sequence[Named], others: Sequence[Named]) -> list[Rows]:
        """Rows `(N, D)`, sparse where one of them is."""
        from scipy.sparse import hstack

        found = zip(*(of_unit_norm(one.rows(train, others)) for one in self.inner), strict=True)
        return [hstack(parts, format="csr") if self.sparse else np.concatenate(parts, axis=1) for parts in found]


def of_unit_norm(rows: Sequence[Rows]) -> list[Rows]:
    """Rows of training and other splits over the mean norm of the first: no side outweighs another by its unit."""
    from scipy.sparse import linalg

    first = rows[0]
    norms = np.linalg.norm(first, axis=1) if isinstance(first, np.ndarray) else linalg.norm(first, axis=1)
    mean = float(norms.mean()) or 1.0
    return [one / mean for one in rows]

"""What a source of data implements: how it is read. What then becomes of it is one story, in graft.data.finish."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from torch import Tensor

from graft.cache.disk import DiskCache
from graft.config.types import FractionBelowOne
from graft.data.finish import finish
from graft.data.folds import Fold
from graft.data.samples import DomainData, LabelKind, Modality, OnBadSample, Raw, Samples


class SplitRule(TypedDict, total=False):
    """How validation and test samples are chosen where they are not official; random and stratified without a key."""

    group: str | None  # samples with one value of this column stay on one side; of files a regular expression
    time: str | None  # the latest samples by this column are test, those before them validation
    near_duplicates: Literal["note", "group", "ignore"]  # samples that look alike: reported, or kept on one side too


class Domain:
    """Where a domain's data come from. Making one is cheap; `load` reads labels and finds files."""

    key = "data.target"  # where the config holds it; the data module sets it, and error messages name it
    cache: DiskCache | None = None  # for what takes long to find out; the data module sets it
    modality: Modality = "image"
    noun = "samples"  # what messages call several samples
    unit = "samples"  # what messages call several of what is read, where that is not the noun: rows, files
    label_kinds: tuple[str, ...] = ("classes", "numbers", "multilabel")  # that it can read
    classes: tuple[str, ...] | None = None  # that the config names, where a source has such a key
    kept_classes: tuple[str, ...] | None = None  # names of those whose samples are kept; the data module sets it
    may_lack_classes = False  # whether a class may have no training sample: in a piece of a public set, by its name
    may_lack_labels = False  # whether `label` null is read: samples of a source without labels, as beside captions
    labelled = True  # whether samples have labels
    reads_beside = False  # whether the other side of a transfer matters for how this one is read
    copies_stay_together = True  # whether equal samples count as one in a split

    def __init__(
        self,
        val_fraction: FractionBelowOne = 0.15,
        test_fraction: FractionBelowOne = 0.15,
        on_bad_sample: OnBadSample = "error",
        label_kind: LabelKind = "classes",
        label_separator: str = "|",
        split: SplitRule | None = None,
    ) -> None:
        """The keys that every source has: what is split off where it is not official, and what labels are."""
        self.sizes: dict[str, float | int] = {"test": test_fraction, "val": val_fraction}
        self.on_bad_sample = on_bad_sample
        self.label_kind = label_kind
        self.label_separator = label_separator
        self.split: dict[str, Any] = dict(split or {})

    def __init_subclass__(cls) -> None:
        """What is read is called as the samples are, unless a class says otherwise."""
        if "noun" in vars(cls) and "unit" not in vars(cls):
            cls.unit = cls.noun

    @property
    def title(self) -> str:
        """The domain's name in tables and plots."""
        raise NotImplementedError

    @property
    def advice(self) -> str:
        """Where labels come from, for data of one class."""
        return ""

    def read(self) -> Raw:
        """The samples of every split that there is; raises GraftError where nothing can be read."""
        raise NotImplementedError

    def origin(self, split: str) -> str:
        """The key of the config that names where a split comes from, and its value."""
        return self.key

    def beside(self, other: "Domain") -> None:
        """Note the other side of a transfer, where how it is read matters for this one."""

    def strata(self, labels: Tensor, classes: Sequence[str] | None) -> Tensor:
        """Which samples `(N,)` count as alike when a split keeps shares."""
        return labels

    def named(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the classes, whose labels are in this order."""
        return classes

    def reading(self) -> Mapping[str, Any]:
        """Plain values that say how a new sample is read as these were, which travel with the model."""
        return {}

    def near_keys(self, splits: Mapping[str, Samples]) -> Mapping[str, Sequence[Any]] | None:
        """A key `(N,)` for each sample of every split, equal where two look alike; None where nothing can tell."""
        return None

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """The samples as the transform takes them, fitted on train alone, and further fields of DomainData.

        Samples that turn out to be unusable get a problem.
        """
        return dict(splits), {}

    def load(self, split_seed: int, fold: Fold | None = None) -> DomainData:
        """Read the domain and split it, with a fold as its test split where one is given.

        Raises GraftError when the data are missing or cannot be used.
        """
        return finish(self, split_seed, fold)

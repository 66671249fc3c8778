"""Pairs of a sample and its label that Python gives: a list, or any map-style Dataset.

That of torch or torchvision gives pairs, the rows of one of Hugging Face are made some.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graft.config.types import Count
from graft.data.domain import Domain
from graft.data.held import KEYS, given
from graft.data.readers.hub_rows import HubRows, is_hub_dataset
from graft.data.readers.images import Look
from graft.data.readers.in_memory import Pictures, Sounds, digest_of, look_at_picture, look_at_sound
from graft.data.readers.labelled import Record
from graft.data.readers.labelled_images import LabelledImages
from graft.data.readers.recordings import LabelledRecordings
from graft.data.readers.texts import LabelledTexts, shortened
from graft.data.samples import LabelKind, Raw, Samples
from graft.errors import GraftError, first_line
from graft.inputs.sequence import Sequences, standardised

NAMES = dict(zip(("train", "val", "test"), KEYS, strict=True))  # the keys of the splits
READ_TWICE = 3  # samples of a split that are read again, to see whether they stay the same


class Pairs:
    """The samples of each split with their labels; stands beside a Domain."""

    key: str
    modality: Any  # that of the Domain
    label_kind: LabelKind

    def __init__(
        self,
        samples: Any,
        val_samples: Any = None,
        test_samples: Any = None,
        class_names: Sequence[str | int] | None = None,
        **settings: Any,
    ) -> None:
        """`class_names` of the labels 0, 1, ...; null = those in `samples.classes`, else the labels as they are."""
        super().__init__(**settings)
        parts = {"train": samples, "val": val_samples, "test": test_samples}
        self.given = {split: given(part) for split, part in parts.items() if part is not None}
        self.stated_names = class_names

    @cached_property
    def parts(self) -> dict[str, Any]:
        """What gives pairs by index, by split."""
        return {
            split: HubRows(part, self.modality, self.origin(split)) if is_hub_dataset(part) else part
            for split, part in self.given.items()
        }

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the labels 0, 1, ...; None where they have none."""
        names = self.stated_names or getattr(self.parts["train"], "classes", None)
        return tuple(map(str, names)) if isinstance(names, list | tuple) else None

    @property
    def title(self) -> str:
        """The name or the class of a Dataset; that of a list says nothing."""
        part = self.parts["train"]
        if isinstance(part, HubRows):
            return part.title
        return "pairs" if isinstance(part, list | tuple) else type(part).__name__

    @property
    def advice(self) -> str:
        """What labels are."""
        return f"{self.key}.samples are pairs (sample, label)."

    def origin(self, split: str) -> str:
        """The key of a split's samples."""
        return f"{self.key}.{NAMES[split]}"

    def rows(self, split: str) -> Iterator[Record]:
        """The pairs of a split, one by one, because all contents may be too many for memory."""
        part = self.parts[split]
        if isinstance(part, Mapping) and "train" in part:
            raise GraftError(
                f"{self.origin(split)}: this has the splits {', '.join(map(str, part))}. Give each under its own key: "
                f"{self.key}.samples is ...['train'], {self.key}.val_samples and {self.key}.test_samples are official "
                "ones, or left out."
            )
        if not hasattr(part, "__getitem__") or not hasattr(part, "__len__") or isinstance(part, str | Mapping):
            raise GraftError(
                f"{self.origin(split)}: this is {shortened(part)}, and has to be a list of pairs (sample, label), or a "
                "Dataset with __len__ and __getitem__. Of what can only be iterated, give list(...)."
            )
        for index in range(len(part)):
            file = Path(f"{NAMES[split]}[{index}]")
            try:
                content, label = pair_of(part, index)
            except ValueError as error:
                yield Record(file, None, None, "", str(error))
            else:
                yield Record(file, None, content, self.label_of(label))

    def label_of(self, label: Any) -> Any:
        """A label as sources give it: a word or a number, or words for several; None where it is missing."""
        if hasattr(label, "tolist"):  # numbers and arrays of numpy and torch
            label = label.tolist()
            if isinstance(label, list) and self.label_kind == "multilabel":  # 0 or 1 for each class
                return [self.word_of(number) for number, one in enumerate(label) if one]
        if self.label_kind == "numbers":
            return label
        return [*map(self.word_of, label)] if isinstance(label, list | tuple) else self.word_of(label)

    def word_of(self, label: Any) -> str | None:
        """The name of a class by its number; anything else as a word."""
        names = self.class_names or ()
        if isinstance(label, int) and 0 <= label < len(names):
            return names[label]
        return None if label is None else str(label)

    def raw(self, splits: Mapping[str, Samples]) -> Raw:
        """What was read; with names of classes these are in the order of their numbers."""
        return Raw(splits, None if self.label_kind == "numbers" else self.class_names)

    def looked_into(self, split: str, look: Callable[[Any], Look]) -> tuple[list[Any], list[Look]]:
        """The labels of a split's pairs, and what a look into each sample finds.

        Raises GraftError for a sample that changed when it was read again.
        """
        labels, found = [], []
        for row in self.rows(split):
            found.append(Look(b"", row.problem) if row.problem else look(row.content))
            labels.append(row.label)
        for index, one in enumerate(found[:READ_TWICE]):
            if not one.problem and one.digest != look(self.parts[split][index][0]).digest:
                raise GraftError(
                    f"{self.key}: {NAMES[split]}[{index}] is another one each time that it is read. Take the random "
                    "transform out of your Dataset; data.augment changes training samples, and no others."
                )
        return labels, found


def pair_of(part: Any, index: int) -> tuple[Any, Any]:
    """A sample and its label; ValueError that says why there is none."""
    try:
        pair = part[index]
    except Exception as error:  # whatever the code of somebody else raises
        raise ValueError(f"reading it raises {type(error).__name__}: {first_line(error)}") from error
    if isinstance(pair, tuple | list) and len(pair) == 2:
        return pair[0], pair[1]
    if isinstance(pair, Mapping):
        keys = ", ".join(map(str, pair))
        raise ValueError(
            f"it is no pair (sample, label) but {type(pair).__name__} with {keys}: of rows, give "
            "[(row[...], row[...]) for row in rows], or a Dataset of Hugging Face"
        )
    raise ValueError(f"it is no pair (sample, label) but {type(pair).__name__} {shortened(pair)}")


class Contents(Sequence):
    """The samples of pairs without their labels, read when asked for."""

    def __init__(self, pairs: Any) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Any:  # type: ignore[override]  # nobody slices it
        return self.pairs[index][0]


class ImagePairs(Pairs, LabelledImages):
    """Images: paths, PIL images, arrays `(H, W)` or `(H, W, C)`, tensors `(C, H, W)`."""

    unit = "images"

    def read(self) -> Raw:
        """The pairs of every split; each image is decoded once, so that a broken one is found before training."""
        splits, places = {}, {}
        looks: dict[str, Look] = {}
        for split, part in self.parts.items():
            labels, found = self.looked_into(split, lambda picture: look_at_picture(picture, self.channels))
            places[split] = [f"{NAMES[split]}[{index}]" for index in range(len(found))]
            looks |= dict(zip(places[split], found, strict=True))
            splits[split] = Samples(inputs=part, labels=labels, places=places[split], contents=None)
        names = iter(self.parts)
        return self.looked_at(
            self.raw(splits), looks, places, lambda part, *how: Pictures(Contents(part), NAMES[next(names)], *how)
        )


class TextPairs(Pairs, LabelledTexts):
    """Texts."""

    unit = "texts"

    def __init__(self, samples: Any, **settings: Any) -> None:
        super().__init__(samples=samples, label="label", classes=None, **settings)

    def records(self) -> dict[str, list[Record]]:
        """The pairs of every split, with those that cannot be used."""
        return {
            split: [
                row if row.problem else self.record(row.file, None, row.content, row.label) for row in self.rows(split)
            ]
            for split in self.parts
        }

    def read(self) -> Raw:
        """The texts of every split."""
        return self.raw(super().read().splits)


class RecordingPairs(Pairs, LabelledRecordings):
    """Recordings: paths, pairs of a waveform and its samples a second, or waveforms of one `sample_rate`."""

    unit = "recordings"

    def __init__(self, samples: Any, sample_rate: Count | None = None, **settings: Any) -> None:
        super().__init__(samples=samples, classes=None, **settings)
        self.sample_rate = sample_rate

    def read(self) -> Raw:
        """The pairs of every split; each recording is looked at once."""
        splits = {}
        for split, part in self.parts.items():
            labels, found = self.looked_into(split, lambda sound: Look(*look_at_sound(sound, self.sample_rate)))
            splits[split] = Samples(
                inputs=Sounds(Contents(part), NAMES[split], self.sample_rate),
                labels=labels,
                places=[f"{NAMES[split]}[{index}]" for index in range(len(found))],
                contents=[look.digest for look in found],
                problems={index: look.problem for index, look in enumerate(found) if look.problem},
            )
        return self.raw(splits)


class SequencePairs(Pairs, Domain):
    """Sequences: arrays, tensors or lists `(L, D)`, L steps of D numbers each; L may differ."""

    modality = "sequence"
    noun = "sequences"

    def read(self) -> Raw:
        """The pairs of every split; steps have as many numbers as most of train's."""
        arrays: dict[bytes, np.ndarray] = {}

        def look(one: Any) -> Look:
            try:
                values = sequence_of(one)
            except (TypeError, ValueError, RuntimeError) as error:
                return Look(b"", first_line(error))
            arrays[digest := digest_of(values)] = values
            return Look(digest)

        looks = {split: self.looked_into(split, look) for split in self.parts}
        sizes = [arrays[one.digest].shape[1] for one in looks["train"][1] if not one.problem]
        size = max(sizes, key=sizes.count, default=1)
        splits = {}
        for split, (labels, found) in looks.items():
            problems = {index: one.problem for index, one in enumerate(found) if one.problem}
            for index, one in enumerate(found):
                if not one.problem and (other := arrays[one.digest].shape[1]) != size:
                    problems[index] = f"its steps have {other} numbers, those of most others {size}"
            nothing = np.zeros((1, size), np.float32)
            usable = [nothing if index in problems else arrays[one.digest] for index, one in enumerate(found)]
            splits[split] = Samples(
                inputs=padded(usable) if usable else Sequences(torch.zeros(0, 1, size), torch.zeros(0)),
                labels=labels,
                places=[f"{NAMES[split]}[{index}]" for index in range(len(found))],
                contents=[one.digest for one in found],
                problems=problems,
            )
        return self.raw(splits)

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Standardised by train, and how many numbers a step has."""
        return standardised(splits)


def sequence_of(one: Any) -> np.ndarray:
    """A sequence as float32 `(L, D)`; ValueError for what is none."""
    values = np.asarray(one, dtype=np.float32)
    if values.ndim != 2 or not values.size:
        raise ValueError(
            f"a sequence is numbers (L, D), L steps of D numbers each, and this is {values.shape}"
            + ("; of one number a step, give values[:, None]" if values.ndim == 1 and values.size else "")
        )
    if not np.isfinite(values).all():
        raise ValueError("a value is NaN or infinite")
    return values


def padded(sequences: Sequence[np.ndarray]) -> Sequences:
    """Sequences `(L, D)` as one tensor, zeros behind their ends."""
    lengths = torch.tensor([len(one) for one in sequences])
    tensors = [torch.from_numpy(one) for one in sequences]
    return Sequences(torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True), lengths)

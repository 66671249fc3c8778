"""What shards of every modality have in common: those to train on are a stream, val and test stay in memory."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt

from graft.config.types import FractionBelowOne, Natural
from graft.data.domain import Domain
from graft.data.finish import Skipped, absent_labels, ordered, reasons
from graft.data.folds import Fold
from graft.data.readers.shard_samples import Files, Labelled, Shards
from graft.data.readers.shards import CLASSES, INDICES, Damaged, Place, count, missing_shards
from graft.data.samples import HELD_OUT, DomainData, OnBadSample, Report, Split, generator, sha256
from graft.data.stream import Stored, Stream, StreamLabels, Unusable
from graft.errors import GraftError, listed, printable

FIRST = 64  # samples that are read beforehand, for what only wants to see some
WORDS_OF = 20_000  # texts of which a vocabulary is made


class ShardsDomain(Domain):
    """Shards of one modality: `train` as a stream, `val` and `test` in memory as they are stored."""

    streams = True  # what the config's check asks
    label_kinds = ("classes",)
    endings: frozenset[str] = frozenset()  # of the files that are a sample's input

    def __init__(
        self,
        root: str,
        train_shards: str = "train-*.tar",
        val_shards: str = "val-*.tar",
        test_shards: str = "test-*.tar",
        input: str | None = None,
        label: str = "cls",
        label_as: Literal["name", "index"] = "name",
        classes: Sequence[str | int] | None = None,
        shuffle_buffer: Natural = 1000,
        held_out_gb: Annotated[float, Gt(0)] = 2.0,
        val_fraction: FractionBelowOne = 0.15,
        test_fraction: FractionBelowOne = 0.15,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        """`root` is a folder or an address; the patterns are of names below it, with `*` or `{000..099}`.

        `label` is the ending of the file with a sample's label, or `json.<name>` for a value in its JSON file.
        """
        super().__init__(val_fraction, test_fraction, on_bad_sample)
        self.root = root
        self.patterns = {"train": train_shards, "val": val_shards, "test": test_shards}
        self.input = None if input is None else input.lower().lstrip(".")
        self.label = label.lstrip(".")
        self.label_as = label_as
        self.classes = None if classes is None else tuple(str(name) for name in classes)
        self.shuffle_buffer = shuffle_buffer
        self.held_out_gb = held_out_gb
        self._numbers: dict[str, int] = {}  # of the classes

    @property
    def title(self) -> str:
        """The folder's name."""
        return self.root.rstrip("/").rpartition("/")[2] or self.root

    # What each modality has of its own

    def problem(self, content: bytes) -> str:
        """Why what a file holds cannot be used, empty where it can."""
        raise NotImplementedError

    def inputs(self, contents: Sequence[bytes]) -> Any:
        """Samples that are decoded when asked for."""
        raise NotImplementedError

    def prepared(self, transform: Any, split: Split) -> Any:
        """What a transform makes of a batch's samples before `collate`."""
        return transform.prepare(split, None)

    def fields(self, first: Split) -> dict[str, Any]:
        """Further fields of DomainData."""
        return {}

    # Loading

    def load(self, split_seed: int, fold: Fold | None = None) -> DomainData:
        """Find the shards, and read validation and test samples; of training samples a few are looked at."""
        place = Place(self.root, f"{self.key}.root")
        index = place.index()
        names, rule = self._split(place, index, split_seed)
        sizes = {split: self._sizes(place, index, names[split]) for split in names}
        shards = {split: Shards(place, names[split], sizes[split], self._files()) for split in names}
        held = {split: self._held_out(shards[split], split) for split in HELD_OUT}
        classes = self._classes(place, [word for rows in held.values() for _, word in rows])
        self._numbers = {name: number for number, name in enumerate(classes)}
        skipped: list[Skipped] = []
        splits: dict[str, Split] = {}
        fingerprint = self._fingerprint(shards, classes)
        for split in HELD_OUT:
            splits[split], bad = self._decoded([self._numbered(*row) for row in held[split]], f"{fingerprint}/{split}")
            skipped += [Skipped(split, printable(one.place), one.problem) for one in bad]
            if not len(splits[split]):
                raise GraftError(f"{self.key}: no {self.noun} can be used for {split} ({reasons(skipped)}).")
        if skipped and self.on_bad_sample == "error":
            raise GraftError(
                f"{self.key}: {len(skipped):,} {self.noun} of val and test cannot be used ({reasons(skipped)}). "
                f"Correct them, or leave them out: {self.key}.on_bad_sample=skip"
            )
        stream = self._stream(shards["train"], f"{fingerprint}/train")
        notes = [f"{len(names['train']):,} shards are read as a stream; a buffer of {self.shuffle_buffer:,} mixes them"]
        if skipped:
            notes.append(f"skipped: {len(skipped):,} {self.noun} ({reasons(skipped)})")
        used = {"train": stream.length or 0, **{split: len(one) for split, one in splits.items()}}
        report = Report(sum(used.values()) + len(skipped), used, {}, tuple(map(described, skipped)), rule, self.noun)
        return DomainData(
            **{
                "name": self.title,
                "train": stream,
                **splits,
                "classes": classes,
                "channels": None,
                "fingerprint": fingerprint,
                "notes": (*notes, *absent_labels(splits, classes)),
                "modality": self.modality,
                "reading": self.reading(),
                "report": None if stream.length is None else report,
                **self.fields(stream.first),
            }
        )

    def _split(self, place: Place, index: Mapping[str, int], seed: int) -> tuple[dict[str, list[str]], str]:
        """The shards of each split; whole ones of train where there are none of its own."""
        names = {split: place.names(pattern, index) for split, pattern in self.patterns.items()}
        train = names["train"]
        if not train:
            raise GraftError(
                f"{self.key}.root={self.root}: no shard is called {self.patterns['train']}. Name them "
                f"({self.key}.train_shards=...), or make some of a folder: graft shards data.target.root=<photos> "
                f"to=<folder>. A place that cannot list its files needs {INDICES[0]}, or "
                f"{self.key}.train_shards='train-{{000000..000099}}.tar'"
            )
        off = [split for split in reversed(HELD_OUT) if not names[split]]
        order = torch.randperm(len(train), generator=generator(seed, "shards")).tolist()
        for split in off:
            number = max(1, round(self.sizes[split] * len(train)))
            names[split], order = sorted(train[one] for one in order[:number]), order[number:]
        if not order:
            raise GraftError(
                f"{self.key}.root={self.root}: {len(train)} shards are too few to split {' and '.join(off)} off. Give "
                f"shards of their own: {self.key}.{off[0]}_shards=..."
            )
        if off:
            names["train"] = [train[one] for one in sorted(order)]
        for split in names:
            missing_shards(place, names[split])
        return names, f"{' and '.join(reversed(off))} of whole shards, by seed" if off else "official splits"

    def _sizes(self, place: Place, index: Mapping[str, int], names: Sequence[str]) -> list[int] | None:
        """How many samples each shard holds: as an index says, else counted where that reads no more than names."""
        known = [index.get(name.rpartition("/")[2]) for name in names]
        if not place.local and None in known:
            return None
        sizes = []
        for name, size in zip(names, known, strict=True):
            try:
                sizes.append(count(place, name) if size is None else size)
            except Damaged as damage:
                raise GraftError(
                    f"{self.key}.root={self.root}: the shard {name} is no whole tar file ({damage}). Write it anew, or "
                    f"leave it out of {self.key}.train_shards, val_shards and test_shards."
                ) from None
        return sizes

    def _files(self) -> Files:
        """Which files are a sample's input and label."""
        label, _, field = self.label.partition(".")
        inputs = frozenset({self.input}) if self.input else self.endings
        return Files(inputs, label.lower(), field, self.noun)

    def _held_out(self, shards: Shards, split: str) -> list[Labelled]:
        """All samples of some shards as they are stored. GraftError for too many."""
        found, total = [], 0
        for stored, word in shards:
            total += len(stored.content)
            if total > self.held_out_gb * 2**30:
                raise GraftError(
                    f"{self.key}.{split}_shards={self.patterns[split]}: {stored.place} goes beyond "
                    f"{self.key}.held_out_gb={self.held_out_gb:g}, and what is held out stays in memory. Name fewer "
                    "shards, or raise it."
                )
            found.append((stored, word))
        return found

    def _classes(self, place: Place, words: Sequence[str | None]) -> tuple[str, ...]:
        """The classes in their order: as the config has them, else `classes.txt`, else the labels held out."""
        classes = self.classes
        if classes is None and (content := place.read(CLASSES)) is not None:
            classes = tuple(line.strip() for line in content.decode("utf-8", "replace").splitlines() if line.strip())
        if classes is None:
            if self.label_as == "index":
                raise GraftError(
                    f"{self.key}.label_as=index: which names they count is unknown. Give {self.key}.classes=[...], or "
                    f"a file {CLASSES} in {self.key}.root with a name a line."
                )
            classes = ordered({word for word in words if word is not None})
        if len(classes) < 2 or len({*classes}) < len(classes):
            raise GraftError(
                f"{self.key}.root={self.root}: its classes are {listed(list(classes)) or 'none'}, but at least 2 that "
                f"differ are needed. Labels stand in files that end in .{self.label}; {self.key}.label names another "
                f"ending, {self.key}.classes and a file {CLASSES} the classes."
            )
        return classes

    def _fingerprint(self, shards: Mapping[str, Shards], classes: Sequence[str]) -> str:
        """Hash of names and sizes: what decides which samples there are, as far as one can know unread."""
        parts = [repr((self.input, self.label, self.label_as, classes, self.reading())).encode()]
        for split, one in shards.items():
            bytes_of = [one.place.size(name) for name in one.names] if one.place.local else None
            parts += [split.encode(), repr((list(one.names), one.sizes, bytes_of)).encode()]
        return sha256(parts)

    def _stream(self, shards: Shards, fingerprint: str) -> Stream:
        length = None if shards.sizes is None else sum(shards.sizes)
        number = WORDS_OF if self.modality == "text" else FIRST
        read = islice(shards.samples(0), number)
        first, bad = self._decoded([self._numbered(*one) for one in read], f"{fingerprint}/first")
        if not len(first):
            what = [Skipped("train", one.place, one.problem) for one in bad]
            raise GraftError(
                f"{self.key}: the shard {shards.names[0]} has no {self.noun} to train on ({reasons(what)})."
            )
        return Stream(
            open=functools.partial(shards.in_order, self._numbered, self.shuffle_buffer),
            decode=self._decode,
            prepare=self.prepared,
            length=length,
            fingerprint=fingerprint,
            key=self.key,
            first=first,
            places=shards.places,
            labels=StreamLabels(length or 0),
            skips=self.on_bad_sample == "skip",
        )

    # Labels and decoding

    def _numbered(self, stored: Stored, word: str | None) -> Stored:
        """The sample with the number of its class, or a problem where it has none."""
        if word is None or stored.problem:
            return stored
        if self.label_as == "index":
            number = int(word) if word.isdecimal() else -1
            if 0 <= number < len(self._numbers):
                return replace(stored, label=number)
            return replace(stored, problem=f"its label {word!r} is no index below {len(self._numbers)}")
        if (label := self._numbers.get(word)) is not None:
            return replace(stored, label=label)
        hint = f"; if it counts them: {self.key}.label_as=index" if word.isdecimal() else ""
        known = listed(list(self._numbers), 10)
        return replace(stored, problem=f"its label {word!r} is not one of the classes: {known}{hint}")

    def _decode(
        self, samples: Sequence[Stored], look: bool, fingerprint: str = ""
    ) -> tuple[Split, torch.Tensor, list[Unusable]]:
        """A split of the samples that can be used, their indices, and the others; with `look` each is decoded."""
        problems = [one.problem or (self.problem(one.content) if look else "") for one in samples]
        good = [one for one, problem in zip(samples, problems, strict=True) if not problem]
        bad = [Unusable(one.place, problem) for one, problem in zip(samples, problems, strict=True) if problem]
        labels = torch.tensor([one.label for one in good], dtype=torch.int64)
        inputs = self.inputs([one.content for one in good])
        split = Split(inputs, labels, fingerprint, [one.place for one in good])
        return split, torch.tensor([one.index for one in good], dtype=torch.int64), bad

    def _decoded(self, samples: Sequence[Stored], fingerprint: str) -> tuple[Split, list[Unusable]]:
        split, _, bad = self._decode(samples, look=True, fingerprint=fingerprint)
        return split, bad


def described(bad: Skipped) -> dict[str, str]:
    """A sample that was left out, for the report."""
    return {"split": bad.split, "sample": bad.place, "reason": bad.problem}

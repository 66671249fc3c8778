"""The data module: both domains, their label budget, and loaders of equal length for training."""

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset

from graft.cache.disk import DiskCache
from graft.cache.rows import Rows
from graft.config.types import Auto, Count, Natural, Seed
from graft.data.boxes import Boxes
from graft.data.domain import Domain
from graft.data.finish import check_folds
from graft.data.folds import Evaluation, Fold
from graft.data.join import with_validation
from graft.data.label_sets import LabelSets, in_grown_classes, in_source_classes
from graft.data.loader import EvalLoader, Loader, ResumableLoader
from graft.data.samples import DomainData, Modality, Split, generator
from graft.data.sampling import EvalBatches, SemiBatches, TrainBatches, balanced_weights
from graft.data.splits import label_budget, others
from graft.data.stream import Stream, whole
from graft.data.stream_loader import StreamBatches, StreamLoader
from graft.data.views import TEACHER, augment_of_view
from graft.errors import GraftError
from graft.federated.federation import Federation
from graft.garbage import libraries_left_alone
from graft.inputs.audio import augment as augment_speech
from graft.inputs.base import DomainBatch, Inputs, InputSpec, Prepared, Transform
from graft.inputs.image import transform as transforms
from graft.inputs.image.boxes import BoxTransform
from graft.tasks.base import Task
from graft.training.lightning import overfits

Augment = transforms.AugmentName | augment_speech.AugmentName
Shift = Literal[  # the keys of both modalities' SHIFTS
    "colour", "blur", "noise", "noise_0db", "babble", "babble_0db", "telephone", "telephone_8bit"
]


def shifted_test(shift: str) -> str:
    """What stored activations of the test split under a shift are called."""
    return f"test, {shift}"


class TransferDataModule(pl.LightningDataModule):
    """Target, and source where there is one. `load` reads both, `set_input` fixes what the backbone wants to see.

    `train_domains`, `eval_domains` and `test_domains` say which sides are drawn from; a side that is not named in any
    of them is never decoded or rendered.
    """

    def __init__(
        self,
        target: Domain,
        source: Domain | None = None,
        *,
        batch_size: Auto | Count = 64,
        source_batch_size: Count | None = None,
        eval_batch_size: Count = 256,
        labels_per_class: Count | None = None,
        target_setting: Literal["supervised", "semi", "unsupervised"] = "supervised",
        refit: bool = False,
        label_sets: LabelSets = "closed",
        source_classes: Sequence[str | int] | None = None,
        target_classes: Sequence[str | int] | None = None,
        unlabelled_batch_size: Count | None = None,
        augment: Augment = "none",
        balance: Literal["none", "weights", "sampler"] = "none",
        epoch: Literal["target", "source", "longest"] | Count = "target",
        num_workers: Natural = 0,
        split_seed: Seed = 0,
        evaluation: Evaluation | None = None,
        folds: Count | None = None,
        fold: Natural | None = None,
        subset_seed: Seed = 0,
        seed: Seed = 0,
        image_size: Count | None = None,
        test_shifts: Sequence[Shift] = (),
        bucket_by_length: bool = False,
    ) -> None:
        """The keys of conf/data; `image_size` in pixels is only carried here for the backbone's config.

        Whoever gives `batch_size="auto"` sets a number before a training loader is asked for.
        """
        super().__init__()
        self.target = target
        self.source = source
        self.batch_size = batch_size
        self.source_batch_size = source_batch_size
        self.eval_batch_size = eval_batch_size
        self.labels_per_class = labels_per_class
        self.target_setting = target_setting
        self.refit = refit
        self.label_sets = label_sets
        self.kept_classes = {"source": source_classes, "target": target_classes}
        self.unlabelled_batch_size = unlabelled_batch_size
        self.augment = augment
        self.balance = balance
        self.epoch = epoch
        self.num_workers = num_workers
        self.split_seed = split_seed
        self.fold = None  # of the target
        if evaluation is not None and folds is not None and fold is not None:
            self.fold = Fold(evaluation, fold, folds)
        self.subset_seed = subset_seed
        self.seed = seed
        self.image_size = image_size
        self.test_shifts = tuple(test_shifts)
        self.bucket_by_length = bucket_by_length
        self.names_suffice = False  # whether a class of the target needs no training sample, as its name is known
        self.test_shift: str | None = None  # the one that test batches get now
        self.decoded: DiskCache | None = None  # where image files are kept decoded, and looks into them; None = nowhere
        self.domains: dict[str, DomainData] = {}
        self.federation: Federation | None = None  # whose clients hold the target's samples
        self.train_domains: tuple[str, ...] = ("target",)
        self.eval_domains: tuple[str, ...] = ("target",)
        self.test_domains: tuple[str, ...] = ("target",) if source is None else ("target", "source")
        self.views: Mapping[str, Sequence[str]] = {}  # of training batches, names by domain (see graft.data.views)
        self.teacher_spec: InputSpec | None = None  # the form of their `teacher` view
        # (domain, split) -> activations `(N, ...)` that stand for its inputs, see graft.callbacks.frozen_features
        self.stored: dict[tuple[str, str], Rows | None] = {}
        self.skipped: dict[str, dict[str, str]] = {}  # by domain, samples of streams that could not be used, and why
        self._pool: Split | None = None  # the target's training samples before the budget, without their labels
        self._prepared: dict[tuple[str, str], Prepared] = {}  # by split and geometry; copies of this module share it

    def load(self) -> None:
        """Read both domains and apply the label budget; a second call does nothing.

        Raises GraftError for missing data, a budget that a class cannot fill, or sides that cannot be joined.
        """
        if self.domains:
            return
        self._introduce()
        with libraries_left_alone():
            self.domains = {"target": self.target.load(self.split_seed, self.fold)}
            if self.source is not None:
                self.domains["source"] = self.source.load(self.split_seed)
        target = self.domains["target"]
        if "source" in self.domains and self.domains["source"].train.labels is None:
            self._take_unlabelled_source(target)
        for name, data in self.domains.items():
            if data.modality != target.modality:
                raise GraftError(
                    f"data.{name} holds {data.modality} data, but data.target {target.modality} data: "
                    "both need one modality."
                )
        for name, data in self.domains.items():
            if isinstance(data.train, Stream):
                self._check_stream(name, data.train)
        self._pool = None if isinstance(target.train, Stream) else replace(target.train, labels=None)
        target = replace(target, train=self._budgeted(target))
        if self.refit:
            target = with_validation(target)
        if self.label_sets != "closed":
            target = in_source_classes(target, self.domains["source"], self.label_sets)
        self.domains["target"] = target

    def _take_unlabelled_source(self, target: DomainData) -> None:
        """Let a source without labels count as of the target's classes, so that both share a head; none is tested."""
        self.domains["source"] = replace(self.domains["source"], classes=target.classes)
        self.test_domains = ("target",)

    def _check_stream(self, name: str, stream: Stream) -> None:
        """Raise GraftError for what needs all training samples at hand, or to know how many there are."""
        of_target = name == "target"
        for key, value, off in (
            ("labels_per_class", self.labels_per_class if of_target else None, None),
            ("balance", self.balance, "none"),
            ("bucket_by_length", self.bucket_by_length, False),
            ("label_sets", self.label_sets, "closed"),
            (f"{name}_classes", self.kept_classes[name], None),
            ("fold", self.fold if of_target else None, None),
        ):
            if value != off:
                raise stream.refusal(f"data.{key}={value}")
        if stream.length is None and not isinstance(self.epoch, int):
            raise GraftError(
                f"data.epoch={self.epoch}: nobody knows how many samples the shards of data.{name} hold, so that an "
                "epoch is a number of steps: data.epoch=1000. With the number of samples of each in a file sizes.json "
                "beside them an epoch is all of them."
            )

    def grow_classes(self, old: Sequence[str], key: str) -> None:
        """Number both sides' classes as a head that grows has them: the `old` ones, then the target's new ones.

        Raises GraftError, which names `key`, for classes that cannot be so.
        """
        self.domains = in_grown_classes(self.domains, old, key)

    def check_folds(self, evaluation: Evaluation, folds: int | None) -> int:
        """How many folds the target has, of groups where `folds` is None; GraftError where one is of no use."""
        self._introduce()
        return check_folds(self.target, self.split_seed, evaluation, folds)

    def _introduce(self) -> None:
        """Let both sides know where the config holds them, the cache, their classes, and each other."""
        sides = {"target": self.target} | ({} if self.source is None else {"source": self.source})
        for name, domain in sides.items():
            domain.key = f"data.{name}"
            domain.cache = self.decoded
            kept = self.kept_classes[name]
            domain.kept_classes = None if kept is None else tuple(map(str, kept))
        if self.names_suffice:
            self.target.may_lack_classes = True
        if self.source is not None:
            self.target.beside(self.source)
            self.source.beside(self.target)

    def _budgeted(self, target: DomainData) -> Split | Stream:
        """The target's training samples that this run may use, with the labels that it may see.

        A semi-supervised target has the labelled ones first, and all others without labels behind them.
        """
        if self.target_setting == "unsupervised":
            if self.labels_per_class is not None:
                raise GraftError(
                    f"data.target_setting=unsupervised has no labels to budget, but data.labels_per_class="
                    f"{self.labels_per_class}. Set data.labels_per_class=null."
                )
            return replace(target.train, labels=None)
        if self.labels_per_class is None:
            if self.target_setting == "semi":
                raise GraftError("data.target_setting=semi needs data.labels_per_class=<number of labels a class>.")
            return target.train
        train = whole(target.train)
        if target.classes is None:
            raise GraftError("data.labels_per_class needs a target with classes. Set data.labels_per_class=null.")
        key = "data.labels_per_class"
        assert train.labels is not None  # it has classes
        chosen = label_budget(train.labels, self.labels_per_class, self.subset_seed, target.classes, key)
        if self.target_setting == "supervised":
            return train.subset(chosen)
        if len(chosen) == len(train):
            raise GraftError(
                f"data.target_setting=semi: data.labels_per_class={self.labels_per_class} labels every training "
                "sample. Give fewer, or set data.target_setting=supervised."
            )
        train = train.subset(torch.cat([chosen, others(len(train), chosen)]))
        assert train.labels is not None
        return replace(train, labels=train.labels[: len(chosen)])

    def held_out(self, indices: Tensor) -> "TransferDataModule":
        """The same data with the target's training samples at `indices` `(M,)` as its validation split.

        An epoch has as many steps as with all of them, so that a schedule goes through the same rates.
        """
        other, target = copy.copy(self), self.domains["target"]
        train, val = target.train.subset(others(len(target.train), indices)), target.train.subset(indices)
        other.domains = self.domains | {"target": replace(target, train=train, val=val)}
        other.epoch, other.batch_size = self.steps_per_epoch, min(self.batch_sizes["target"], len(train))
        other.source_batch_size = self.batch_sizes["source"]
        other.eval_domains = ("target",)
        other.stored, other._prepared = {}, {}
        return other

    def of_unlabelled_target(self) -> "TransferDataModule":
        """The same data with the target's training inputs, whatever the label budget, in the place of the source.

        They have no labels, and nothing is held out: the target's validation and test samples are not among them.
        """
        assert self._pool is not None
        other, target, none = copy.copy(self), self.domains["target"], self._pool.subset(torch.arange(0))
        inputs = replace(target, train=self._pool, val=none, test=none, fingerprint=self._pool.fingerprint)
        other.source, other.domains = self.target, self.domains | {"source": inputs}
        return other

    def classes(self, domain: str) -> tuple[str, ...] | None:
        """Class names of a domain, None where it has none."""
        return self.domains[domain].classes

    def num_outputs(self, domain: str, task: Task) -> int:
        """Size of the head's output for a task on a domain."""
        return task.num_outputs(self.classes(domain))

    @property
    def modality(self) -> Modality:
        """What a sample is, on both sides."""
        return self.domains["target"].modality

    @property
    def backbone_arguments(self) -> dict[str, Any]:
        """What a backbone that is made for these data has to know of them; the target's word counts.

        Only the training texts, whose words become a vocabulary, are those of both sides.
        """
        arguments: dict[str, Any] = {"channels": self.channels} if self.channels else {}
        for domain in reversed(self.domains.values()):
            arguments |= domain.backbone_arguments
        if "texts" in arguments:
            arguments["texts"] = ConcatDataset([d.backbone_arguments["texts"] for d in self.domains.values()])
        return arguments

    @property
    def channels(self) -> int | None:
        """Channels of the images, of the side that has more, where they differ; None where there are no images."""
        return max((domain.channels for domain in self.domains.values() if domain.channels), default=None)

    def image_side(self) -> int | None:
        """Side in pixels of a square of the first target image's area; None without any image."""
        inputs: Any = self._seen("target").inputs
        shape = tuple(inputs[0].shape) if len(inputs) and self.modality == "image" else ()
        return round(math.sqrt(shape[-2] * shape[-1])) if len(shape) == 3 else None

    def _seen(self, domain: str) -> Split:
        """Training samples that may be looked at before training: all, or a stream's first."""
        train = self.domains[domain].train
        return train.first if isinstance(train, Stream) else train

    def _whole(self, domain: str, split_name: str) -> Split:
        """A split that is gone through as often as is asked for; GraftError for a stream."""
        return whole(getattr(self.domains[domain], split_name))

    @property
    def same_classes(self) -> bool:
        """Whether source and target have the same classes in the same order."""
        return "source" in self.domains and self.classes("source") == self.classes("target")

    def class_weights(self, domain: str) -> Tensor | None:
        """Loss weights `(K,)`, inverse to class frequency and 1 on average over samples, for `balance=weights`."""
        data = self.domains[domain]
        if self.balance != "weights" or data.classes is None or data.train.labels is None:
            return None
        labels = data.train.labels
        counts = labels.bincount(minlength=len(data.classes)) if labels.ndim == 1 else labels.sum(0)
        return len(labels) / (len(data.classes) * counts.clamp(min=1)).float()

    def set_input(self, input_spec: InputSpec) -> None:
        """Build the transforms for a backbone's input; GraftError for augmentation or shifts of another modality."""
        self._input_spec = input_spec
        if (target := self.domains.get("target")) is not None and isinstance(target.train.labels, Boxes):
            assert isinstance(input_spec, transforms.ImageSpec)  # only images have boxes
            self._train_transform: Transform = BoxTransform(input_spec, self.augment)
            self._eval_transform: Transform = BoxTransform(input_spec)
            return
        self._train_transform = input_spec.transform(self.augment)
        self._eval_transform = input_spec.transform()
        self._view_transforms = {}
        for view in dict.fromkeys(view for views in self.views.values() for view in views):
            spec = self.teacher_spec if view == TEACHER and self.teacher_spec else input_spec
            self._view_transforms[view] = spec.transform(augment_of_view(view, self.modality, self.augment))
        for shift in self.test_shifts:
            input_spec.transform(shift=shift)

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Samples a step of each domain, on each process."""
        batch_size = cast(int, self.batch_size)  # no longer `auto`
        return {"target": batch_size, "source": self.source_batch_size or batch_size}

    @property
    def steps_per_epoch(self) -> int:
        """Training steps an epoch, on each process."""
        if isinstance(self.epoch, int):
            return self.epoch
        return len(self._batches(self._epoch_domain))

    @property
    def samples_per_epoch(self) -> dict[str, int]:
        """Samples that training draws of each of its domains in an epoch, on one process."""
        steps, once = self.steps_per_epoch, None if isinstance(self.epoch, int) else self._epoch_domain
        drawn = {domain: steps * self.batch_sizes[domain] for domain in self.train_domains}
        if self.federation is not None and "target" in drawn:
            return {**drawn, "target": self.federation.samples(self.batch_sizes["target"])}
        if once in drawn:  # its last batch may be smaller
            drawn[once] = min(drawn[once], len(self.domains[once].train))  # of a stream whose length is known
        return drawn

    @property
    def _epoch_domain(self) -> str:
        """The side that an epoch goes through once."""
        if self.epoch == "longest":
            return max(self.train_domains, key=lambda domain: len(self._batches(domain)))
        if self.epoch not in ("target", "source"):
            raise GraftError(f"data.epoch={self.epoch!r}: allowed are target, source, longest or a number of steps.")
        if self.epoch not in self.domains:
            raise GraftError(f"data.epoch={self.epoch}, but data.{self.epoch} is null. Use data.epoch=target.")
        return self.epoch

    def _batches(self, domain: str, steps: int | None = None) -> TrainBatches:
        """Batches of a domain: once through it, or `steps` batches an epoch from an endless stream."""
        train, fixed = self.domains[domain].train, bool(self.trainer and overfits(self.trainer))
        size, seed = self.batch_sizes[domain], (self.seed, domain)
        if isinstance(train, Stream):
            return StreamBatches(train, size, seed, self.epoch if isinstance(self.epoch, int) else steps, fixed)
        weights = self._draw_weights(domain)
        lengths = functools.partial(self._lengths, domain) if self.bucket_by_length else None
        if self.federation is not None and domain == "target":
            return self.federation.train_batches(size, seed, self.trainer.current_epoch if self.trainer else 0)
        if not train.partly_labelled:
            return TrainBatches(len(train), size, seed, steps, weights, fixed, lengths)
        assert train.labels is not None
        number = len(train.labels)
        unlabelled = TrainBatches(
            len(train) - number,
            self.unlabelled_batch_size or size,
            (*seed, "unlabelled"),
            steps,
            fixed=fixed,
            lengths=lengths and (lambda: lengths()[number:]),
        )
        labelled = TrainBatches(
            number, size, seed, len(unlabelled), weights, fixed, lengths and (lambda: lengths()[:number])
        )
        return SemiBatches(labelled, unlabelled)

    def _draw_weights(self, domain: str) -> Tensor | None:
        """How often each training sample `(N,)` is drawn, for classes or sources that count alike; None: all once."""
        data = self.domains[domain]
        alike = [
            data.train.labels if self.balance == "sampler" else None,
            data.train.sources if data.equal_sources else None,
        ]
        groups = [one.long() for one in alike if one is not None]
        if not groups:
            return None
        return balanced_weights(torch.stack(groups, dim=1).unique(dim=0, return_inverse=True)[1])

    def _lengths(self, domain: str) -> Tensor:
        """Lengths `(N,)` of a domain's training samples, for batches of about one length."""
        lengths = self._lengths_of(self._whole(domain, "train"), self._train_transform)
        if lengths is None:
            raise GraftError(
                f"data.bucket_by_length=true: {self.modality} data have no length. Set data.bucket_by_length=false."
            )
        return lengths

    def _lengths_of(self, split: Split, transform: Transform) -> Tensor | None:
        """Lengths `(N,)` of a split's samples; None where they have none."""
        return getattr(self._prepared_samples(split, transform), "lengths", None)

    def train_dataloader(self) -> dict[str, ResumableLoader]:
        """A loader for each training domain, of equal length; batches are `{domain: batch}`."""
        steps = self.steps_per_epoch
        once = None if isinstance(self.epoch, int) else self._epoch_domain
        return {domain: self._train_loader(domain, None if domain == once else steps) for domain in self.train_domains}

    def _train_loader(self, domain: str, steps: int | None) -> ResumableLoader:
        train, batches = self.domains[domain].train, self._batches(domain, steps)
        if isinstance(train, Stream):
            assert isinstance(batches, StreamBatches)
            views = {view: self._view_transforms[view] for view in self.views.get(domain, ())}
            skipped = self.skipped.setdefault(domain, {})
            return StreamLoader(train, self._train_transform, batches, self.num_workers, views, skipped)
        return ResumableLoader(
            *self._samples(train, self._train_transform),
            batches,
            self.num_workers,
            functools.partial(self.stored.get, (domain, "train")),
            self._views(domain),
        )

    def _views(self, domain: str) -> dict[str, tuple[Callable[[], Prepared], Transform]]:
        """What further versions of a domain's training samples are drawn from."""
        transforms = {view: self._view_transforms[view] for view in self.views.get(domain, ())}
        split = self._whole(domain, "train")
        return {
            view: (functools.partial(self._prepared_samples, split, transform), transform)
            for view, transform in transforms.items()
        }

    def train_batches(self) -> Iterator[dict[str, DomainBatch]]:
        """The first epoch's training batches as `{domain: batch}`, apart from the loaders that training draws from."""
        loaders = self.train_dataloader()
        for batches in zip(*loaders.values(), strict=True):
            yield dict(zip(loaders, batches, strict=True))

    def train_batch(self, epoch: int, step: int, rank: int, *, stored: bool = False) -> dict[str, DomainBatch]:
        """What a process trained on at a step, by domain: the samples, or `stored` activations where there are some."""
        drawn = {}
        for domain, loader in self.train_dataloader().items():
            loader.batch_sampler.set_epoch(epoch)
            drawn[domain] = loader.batch(loader.batch_sampler.key(step, rank), stored=stored)
        return drawn

    def val_dataloader(self) -> list[EvalLoader]:
        """A loader for each of `eval_domains`, in their order; batches are `{domain: batch}`."""
        return [self.eval_loader(domain, "val") for domain in self.eval_domains]

    def test_dataloader(self) -> list[EvalLoader]:
        """A loader for each of `test_domains`, in their order; batches are `{domain: batch}`.

        With a `test_shift` only the target is tested, its images changed so.
        """
        if self.test_shift is not None:
            shifted = self._input_spec.transform(shift=self.test_shift)
            stored = functools.partial(self.stored.get, ("target", shifted_test(self.test_shift)))
            return [self._whole_loader("target", self.domains["target"].test, shifted, stored)]
        return [self.eval_loader(domain, "test") for domain in self.test_domains]

    def plain_batches(
        self,
        domain: str,
        split_name: str,
        view: int | None = None,
        spec: InputSpec | None = None,
        shift: str | None = None,
        parts: bool = False,
    ) -> Iterator[DomainBatch]:
        """Batches of a domain's train, val or test split; every process gets all.

        Without augmentation, or as the `view`-th of endlessly many augmented versions of the split. With a `spec` in
        the form that another network takes, without augmentation; with a `shift` changed so. `parts`: of sequences
        rather smaller batches than much padding.
        """
        transform = self._eval_transform if view is None else self._train_transform
        if spec is not None or shift is not None:
            transform = (spec or self._input_spec).transform(shift=shift)
        split = self._whole(domain, split_name)
        split = replace(split, labels=None) if split.partly_labelled else split
        seed, lengths = (self.seed, domain, "view", view), functools.partial(self._lengths_of, split, transform)
        batches = EvalBatches(len(split), self.eval_batch_size, seed, shared=False, lengths=lengths, parts=parts)
        yield from Loader(*self._samples(split, transform), batches, self.num_workers)

    def drawn_batches(self, domain: str, samples: int, batch_size: int) -> Iterator[DomainBatch]:
        """Batches of training samples that are drawn once and for all, without augmentation; every process gets all.

        Of a split of which some have labels, those.
        """
        train = self._whole(domain, "train").labelled
        indices = torch.randperm(len(train), generator=generator("drawn", domain))[:samples]
        keys = [(0, one) for one in indices.split(batch_size)]
        yield from Loader(*self._samples(train, self._eval_transform), keys, self.num_workers)

    def batches_of(
        self, domain: str, split_name: str, indices: Tensor, *, stored: bool = True
    ) -> Iterator[DomainBatch]:
        """Batches of the samples at `indices` `(M,)` of a split, without augmentation; every process gets all.

        Activations that are `stored` stand for inputs, where those of the split are of samples without augmentation.
        """
        split, keys = (
            self._whole(domain, split_name),
            [(0, one) for one in indices.split(self.eval_batch_size)],
        )
        plain = stored and (split_name != "train" or self.augment == "none")
        rows = self.stored.get((domain, split_name)) if plain else None
        yield from Loader(*self._samples(split, self._eval_transform), keys, self.num_workers, lambda: rows)

    def few_samples(self, domain: str, count: int) -> Inputs:
        """Inputs `(B, ...)` of some of a domain's training samples, spread over the split; no others are decoded."""
        split = self._seen(domain)
        spread = torch.linspace(0, len(split) - 1, min(count, len(split))).long()
        prepared = self._eval_transform.prepare(replace(split, labels=None).subset(spread), None)
        return self._eval_transform.collate(prepared[torch.arange(len(spread))])

    def parts(self, domain: str) -> list[Any]:
        """The objects whose code makes a domain's batches, for the keys of what is kept of them."""
        source = getattr(self, domain)
        while isinstance(inner := getattr(source, "domain", None), Domain):  # of one that is shared, or of several
            source = inner
        return [TransferDataModule, source, self._eval_transform]

    def eval_loader(self, domain: str, split_name: str) -> EvalLoader:
        """Batches `{domain: batch}` of a whole split, without augmentation; each process has its share."""
        stored = functools.partial(self.stored.get, (domain, split_name))
        owned = None
        if self.federation is not None and domain == "target":
            owned = self.federation.eval_batches(split_name, self.eval_batch_size)
        split = getattr(self.domains[domain], split_name)
        return self._whole_loader(domain, split, self._eval_transform, stored, owned)

    def plain_train_loader(self, domain: str) -> EvalLoader:
        """Batches `{domain: batch}` of all training samples, plain and unlabelled; each process has its share."""
        return self._whole_loader(domain, replace(self._whole(domain, "train"), labels=None), self._eval_transform)

    def _whole_loader(
        self,
        domain: str,
        split: Split,
        transform: Transform,
        stored: Callable[[], Rows | None] = lambda: None,
        batches: EvalBatches | None = None,
    ) -> EvalLoader:
        def lengths() -> Tensor | None:
            return self._lengths_of(split, transform) if stored() is None else None

        batches = batches or EvalBatches(len(split), self.eval_batch_size, lengths=lengths)
        return EvalLoader(domain, *self._samples(split, transform), batches, self.num_workers, stored)

    def _samples(self, split: Split, transform: Transform) -> tuple[Callable[[], Prepared], Tensor | None, Transform]:
        """What a loader draws from; nothing is decoded before the first batch."""
        return functools.partial(self._prepared_samples, split, transform), split.labels, transform

    def _prepared_samples(self, split: Split, transform: Transform) -> Prepared:
        key = (split.fingerprint, transform.key)
        if key not in self._prepared:
            self._prepared[key] = transform.prepare(split, self.decoded)
        return self._prepared[key]

    @property
    def samples_to_train(self) -> int:
        """The target's training samples; of a stream whose length nobody knows those of an epoch."""
        train = self.domains["target"].train
        return self._epoch_of_steps("target") if unknown(train) else len(train)

    def labelled(self, domain: str) -> int:
        """How many training samples have labels; of a stream whose length nobody knows those of an epoch."""
        train = self.domains[domain].train
        if train.labels is None:
            return 0
        return self._epoch_of_steps(domain) if unknown(train) else len(train.labels)

    def _epoch_of_steps(self, domain: str) -> int:
        return self.steps_per_epoch * self.batch_sizes[domain]

    def summary(self) -> dict[str, dict[str, Any]]:
        """Sizes, classes and label counts of each domain, for the printout and results.json."""
        summary = {}
        for name, data in self.domains.items():
            train = self._epoch_of_steps(name) if unknown(data.train) else len(data.train)
            summary[name] = {
                "name": data.name,
                "classes": None if data.classes is None else list(data.classes),
                "channels": data.channels,
                "train": train,
                "val": len(data.val),
                "test": len(data.test),
                "labels": {"train": self.labelled(name), "val": 0 if data.val.labels is None else len(data.val)},
                "fingerprint": data.fingerprint,
                "notes": list(data.notes),
                "report": None if data.report is None else {"sentence": data.report.sentence(), **asdict(data.report)},
            }
        summary["target"] |= {"labels_per_class": self.labels_per_class, "pool": len(self._pool or ())}
        return summary


def unknown(train: Split | Stream) -> bool:
    """Whether nobody knows how many samples there are."""
    return isinstance(train, Stream) and train.length is None

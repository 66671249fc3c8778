"""Frozen parts of the backbone run once: behind them training reads activations instead of inputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from graft.backbones.maps import MapsSplit
from graft.backbones.split_backbone import SplitBackbone, active_modules, find_split, weights_hash
from graft.cache.extract import Pass
from graft.cache.features import FeatureCache
from graft.cache.rows import Rows, TakenRows
from graft.data.module import TransferDataModule, shifted_test
from graft.data.stream import Stream
from graft.heads.base import takes_maps
from graft.inputs.base import Inputs
from graft.module import TransferModule
from graft.notes import say_once
from graft.strategies.base import Phase, frozen_modules
from graft.training.lightning import data_of, epochs_of, holds_all_weights, overfits
from graft.training.normalization import batchnorms


@dataclass(frozen=True)
class Place:
    """Where a phase cuts the backbone, and a hash of the weights before it."""

    cut: SplitBackbone
    weights: str


class FrozenFeatures(Callback):
    """In every phase, cuts the backbone before the first part that trains and keeps what comes out there.

    Where a sample's input never changes its activation is computed once, stored, and stands in its place in the
    batches. With augmentation that needs `views`: a number of augmented versions of a sample, one an epoch; with
    none the frozen part runs in every step. `averages` says that validation sees averaged weights, `compiles` that
    what trains of the backbone is compiled as one, which then cannot be cut, `tests` that the fit tests checkpoints.
    """

    def __init__(
        self, cache: FeatureCache, views: int = 0, averages: bool = False, compiles: bool = False, tests: bool = False
    ) -> None:
        self.cache = cache
        self.views = views
        self.averages = averages
        self.compiles = compiles
        self.tests = tests
        self._phase: Phase | None = None
        self._places: dict[int, Place | None] = {}  # by the phase's identity
        self._views: dict[str, list[Rows]] = {}
        self._kept: dict[str, Rows | None] = {}  # by key, of what rules make of validation inputs

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin, also inside a phase, where a run resumes."""
        assert isinstance(pl_module, TransferModule)
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Split the backbone again where a phase begins, and take the epoch's views."""
        assert isinstance(pl_module, TransferModule)
        epoch = min(trainer.current_epoch, epochs_of(trainer) - 1)
        phase = pl_module.phase(epoch)
        if phase is not self._phase:
            self._leave(trainer, pl_module)
            self._phase = phase
            pl_module.apply_phase(phase)
            self._enter(trainer, pl_module, phase)
        for domain, views in self._views.items():
            data_of(trainer).stored[domain, "train"] = views[epoch % len(views)]

    def _enter(self, trainer: pl.Trainer, module: TransferModule, phase: Phase) -> None:
        if not self._can_cut(trainer, module, phase):
            return
        data: TransferDataModule = data_of(trainer)
        plain = data.augment == "none"
        # Training would let rounding grow: what is kept for it has to be, bit by bit, what the backbone itself gives.
        fold = not module.backbone_trains(epochs_of(trainer)) or not (plain or self.views)
        place = self._place(module, phase, fold)
        if place is None or (self.compiles and not place.cut.whole):
            return
        module.cut = place.cut
        later = self._later_places(trainer, module, phase, place)
        if everything(trainer.limit_train_batches) and not overfits(trainer) and not module.batch_transforms:
            for domain in data.train_domains if plain or self.views else ():
                if isinstance(data.domains[domain].train, Stream):
                    say_once(
                        f"data.{domain} is read as a stream: what the frozen part makes of its training samples is not "
                        "kept, and is computed in every step"
                    )
                    continue
                drawn = phase.epochs * data.steps_per_epoch * data.batch_sizes[domain] * trainer.world_size
                if drawn < len(data.domains[domain].train):
                    continue  # not every sample's turn comes
                views = [None] if plain else range(self.views)
                rows = [self._rows(trainer, place, later, domain, "train", view) for view in views]
                kept = [one for one in rows if one is not None]
                if len(kept) == len(rows):
                    self._views[domain] = kept
        if everything(trainer.limit_val_batches):
            self._store_validation(trainer, module, place, later)
            if self.tests:
                data.stored["target", "test"] = self._rows(trainer, place, later, "target", "test")

    def _store_validation(
        self, trainer: pl.Trainer, module: TransferModule, place: Place, later: Sequence[Place]
    ) -> None:
        data: TransferDataModule = data_of(trainer)
        for domain in data.eval_domains:
            data.stored[domain, "val"] = self._rows(trainer, place, later, domain, "val")
        module.kept = partial(self._made, trainer, place)

    def _place(self, module: TransferModule, phase: Phase, fold: bool) -> Place | None:
        """Where a phase cuts the backbone, found once."""
        if id(phase) not in self._places:
            active = active_in(module, phase)
            cut: SplitBackbone | None
            if any(takes_maps(head) for head in module.heads.values()):
                cut = None if active else MapsSplit(module.backbone, read_stages(module))
            else:
                cut = find_split(module.backbone, active, fold)
            self._places[id(phase)] = Place(cut, weights_hash(module.backbone, active)) if cut else None
        return self._places[id(phase)]

    def _place_behind(self, trainer: pl.Trainer, module: TransferModule, limit: int | float) -> Place | None:
        """Where a whole split's activations are taken behind a backbone, or parts of a fusion, that never trained."""
        trained = module.backbone_trains(epochs_of(trainer)) and not module.backbone.parts
        if trained or not everything(limit) or not holds_all_weights(trainer) or not module.can_cut:
            return None
        return self._place(module, module.phases(epochs_of(trainer))[-1], fold=True)

    def _later_places(self, trainer: pl.Trainer, module: TransferModule, phase: Phase, place: Place) -> list[Place]:
        """Cuts of later phases before which nothing trains until then: one pass computes them together."""
        active = active_in(module, phase)
        found: list[Place] = []
        for later in [] if self.compiles else module.later_phases(phase):
            then = active_in(module, later)
            if not active <= then or not self._can_cut(trainer, module, later):
                break
            active = then
            later_place = self._place(module, later, place.cut.fold)
            if later_place is not None and all(p.cut.name != later_place.cut.name for p in (place, *found)):
                found.append(later_place)
        return found

    def _can_cut(self, trainer: pl.Trainer, module: TransferModule, phase: Phase) -> bool:
        earlier = frozenset().union(*(p.parameters for p in module.earlier_phases(phase)))
        return (
            holds_all_weights(trainer)
            and not (self.averages and earlier - phase.parameters)  # an average still holds what has trained before
            and module.can_cut
        )

    def _rows(
        self,
        trainer: pl.Trainer,
        place: Place,
        later: Sequence[Place],
        domain: str,
        split_name: str,
        view: int | None = None,
        shift: str | None = None,
    ) -> Rows | None:
        data, split_name, taken = self._stored_with(trainer, domain, split_name)
        split = getattr(data.domains[domain], split_name)
        if len(split) == 0:
            return None
        one = Pass(data, domain, split_name, trainer.precision_plugin, trainer.strategy.root_device, view, shift)
        wanted, *also = [one.wanted(place.cut, place.weights) for place in (place, *later)]
        context = trainer.precision_plugin.forward_context  # such as autocast
        shown = split_name if shift is None else shifted_test(shift)
        batches = partial(one.batches, sized=isinstance(place.cut, MapsSplit))
        rows = self.cache.rows(wanted, also, batches, len(split), context, domain, shown)
        return rows if rows is None or taken is None else TakenRows(rows, taken)

    def _made(
        self,
        trainer: pl.Trainer,
        place: Place,
        depends_on: Mapping[str, Any],
        samples: int,
        batches: Callable[[], Iterator[tuple[Tensor, Inputs]]],
    ) -> Rows | None:
        """Activations of inputs that are made of the target's validation split, see `TransferModule.kept`."""
        one = Pass(data_of(trainer), "target", "val", trainer.precision_plugin, trainer.strategy.root_device)
        wanted = one.wanted(place.cut, place.weights, depends_on)
        if wanted.key not in self._kept:
            moved = lambda: ((indices, one.moved(inputs)) for indices, inputs in batches())  # noqa: E731
            context = trainer.precision_plugin.forward_context
            self._kept[wanted.key] = self.cache.rows(wanted, [], moved, samples, context, "target", "val, mixed")
        return self._kept[wanted.key]

    def _stored_with(
        self, trainer: pl.Trainer, domain: str, split_name: str
    ) -> tuple[TransferDataModule, str, Tensor | None]:
        """The data and split whose activations are stored, and which of them `(M,)` are the split's; None: all."""
        return data_of(trainer), split_name, None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let go: other weights may be loaded from now on."""
        assert isinstance(pl_module, TransferModule)
        self._end(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Let go."""
        assert isinstance(pl_module, TransferModule)
        self._end(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Outside of a fit, validate on stored features behind a backbone that never trained, as the fit did.

        Training samples are read for the statistics of a head's BatchNorm alone.
        """
        assert isinstance(pl_module, TransferModule)
        if trainer.state.fn != "validate":
            return
        place = self._place_behind(trainer, pl_module, trainer.limit_val_batches)
        if place is None:
            return
        pl_module.cut = place.cut
        self._store_validation(trainer, pl_module, place, [])
        data: TransferDataModule = data_of(trainer)
        for domain in data.train_domains if batchnorms(pl_module.heads) and data.augment == "none" else ():
            if not isinstance(data.domains[domain].train, Stream):
                data.stored[domain, "train"] = self._rows(trainer, place, [], domain, "train")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let go, outside of a fit."""
        assert isinstance(pl_module, TransferModule)
        if trainer.state.fn == "validate":
            self._end(trainer, pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Test a backbone that never trained on stored features too: other runs with it have the same."""
        assert isinstance(pl_module, TransferModule)
        data: TransferDataModule = data_of(trainer)
        place = self._place_behind(trainer, pl_module, trainer.limit_test_batches)
        if place is not None:
            pl_module.cut = place.cut
            if data.test_shift is not None:
                rows = self._rows(trainer, place, [], "target", "test", shift=data.test_shift)
                data.stored["target", shifted_test(data.test_shift)] = rows
                return
            for domain in data.test_domains:
                data.stored[domain, "test"] = self._rows(trainer, place, [], domain, "test")

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say of validation samples what is said of their stored features, which validation has read before."""
        assert isinstance(pl_module, TransferModule)
        data: TransferDataModule | None = data_of(trainer)
        if data is None:
            return
        place = self._place_behind(trainer, pl_module, trainer.limit_predict_batches)
        if place is not None:
            pl_module.cut = place.cut
            data.stored["target", "val"] = self._rows(trainer, place, [], "target", "val")

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let go."""
        assert isinstance(pl_module, TransferModule)
        self._end(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let go."""
        assert isinstance(pl_module, TransferModule)
        self._end(trainer, pl_module)

    def _end(self, trainer: pl.Trainer, module: TransferModule) -> None:
        self._leave(trainer, module)
        self._places = {}

    def _leave(self, trainer: pl.Trainer, module: TransferModule) -> None:
        module.cut = None
        module.kept = None
        self._phase = None
        self._views = {}
        self._kept = {}
        if data_of(trainer) is not None:
            data_of(trainer).stored.clear()


def active_in(module: TransferModule, phase: Phase) -> set[str]:
    """Names of the backbone's modules that train or behave as in training in a phase."""
    return active_modules(module.backbone, frozen_modules(module.backbone, phase), phase.parameters)


def read_stages(module: TransferModule) -> list[str]:
    """The stages whose maps heads read, in their order; all where a head does not say."""
    stages = [stage.name for stage in module.backbone.stages]
    read = {stage for head in module.heads.values() for stage in getattr(head, "stages", stages)}
    return [stage for stage in stages if stage in read]


def everything(limit: int | float) -> bool:
    """Whether a Trainer's limit leaves all batches; the integer 1 is one batch."""
    return isinstance(limit, float) and limit == 1.0

"""Structured pruning by torch-pruning's dependency graph: whole channels go, and the network gets faster everywhere."""

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval
from torch import nn

from graft.backbones.base import Backbone
from graft.compress.base import Compression, CompressionContext, check_resumed
from graft.compress.structure import RESIZABLE, changed_shapes, resize, shapes_of
from graft.config.types import Count, Natural
from graft.errors import GraftError, first_line
from graft.heads.base import seen_by
from graft.strategies.base import Strategy

ATTENTION = ("attn", "attention")  # in the name of a module: its heads divide their channels by fixed numbers
KIND = "prune"


class Prune(Compression):
    """Leaves out the least important channels of the backbone (DepGraph; Fang et al., CVPR 2023), and trains on.

    `ratio` of the channels go in `steps` equal parts, at the beginning of as many epochs from `start_epoch` on; the
    epochs that follow recover. Channels that must go together, through residual connections, are one group, whose
    importance is the mean over its layers: of the weights' norms (`magnitude`), or of what leaving it out changes in
    the loss to first order on `taylor_samples` training samples (`taylor`; Molchanov et al., CVPR 2019). `uniform`
    takes the ratio of every group, `global` ranks channels over all groups.

    Features keep their size, attention its heads, and what torch-pruning or a layer's own code ties to a number of
    channels stays whole; of transformers the hidden units of their MLPs are pruned.
    """

    changes_weights = True
    replaces_parameters = True
    takes_adapters = False

    def __init__(
        self,
        ratio: Annotated[float, Interval(gt=0, lt=1)] = 0.5,
        importance: Literal["magnitude", "taylor"] = "magnitude",
        scope: Literal["uniform", "global"] = "uniform",
        start_epoch: Natural = 0,
        steps: Count = 1,
        round_to: Count = 8,
        taylor_samples: Count = 256,
    ) -> None:
        super().__init__()
        self.ratio = ratio
        self.importance = importance
        self.scope = scope
        self.start_epoch = start_epoch
        self.steps = steps
        self.round_to = round_to
        self.taylor_samples = taylor_samples
        self.changes_network_in_training = start_epoch + steps > 1
        self.done = 0  # steps
        self.whole: dict[str, list[int]] = {}  # shapes before the first step
        self.context: CompressionContext | None = None

    def check(self, backbone: Backbone, strategy: Strategy) -> None:
        """GraftError where no channel of the backbone can go; tried on a copy."""
        with torch.random.fork_rng(devices=()):
            trial = copy.deepcopy(backbone)
            try:
                pruned = Pruner(trial, self.ratio, "magnitude", self.scope, self.round_to).prune()
            except GraftError:
                raise
            except Exception as error:  # the library has many, for networks that its graph does not see through
                raise GraftError(
                    f"compress=prune: torch-pruning cannot prune {backbone.name}: {first_line(error)}. Use "
                    "compress=magnitude."
                ) from error
            if not pruned:
                raise GraftError(
                    f"compress=prune compress.ratio={self.ratio:g} compress.round_to={self.round_to}: no channel of "
                    f"{backbone.name} can go. Take a larger ratio, a smaller round_to, or compress=magnitude."
                )
            outputs = trial(backbone.example_inputs())
        if outputs.shape[1] != backbone.feature_size or not bool(outputs.isfinite().all()):
            raise GraftError(f"compress=prune: {backbone.name} does not compute once pruned. Use compress=magnitude.")

    def prepare(self, context: CompressionContext, saved: Mapping[str, Any] | None) -> None:
        """Take the steps before the first epoch, or give the network the shapes that it had in a checkpoint."""
        self.context = context
        self.whole = shapes_of(context.backbone)
        if saved is None:
            self.begin_epoch(0)
            return
        check_resumed(KIND, saved)
        resize(context.backbone, saved["resized"])
        self.done = saved["done"]

    def begin_epoch(self, epoch: int) -> bool:
        """Take the steps that are due."""
        due = min(self.steps, max(0, epoch + 1 - self.start_epoch))
        if due <= self.done:
            return False
        while self.done < due:
            self.step()
        return True

    def step(self) -> None:
        """Prune once: to the share of channels that a run without rounding would have left by now."""
        assert self.context is not None  # see prepare
        kept, keep = (1 - self.ratio * taken / self.steps for taken in (self.done, self.done + 1))
        pruner = Pruner(self.context.backbone, 1 - keep / kept, self.importance, self.scope, self.round_to)
        if self.importance == "taylor":
            add_gradients(self.context, self.taylor_samples)
        pruner.prune()
        for part in (self.context.backbone, *self.context.heads.values()):
            part.zero_grad()
        self.done += 1

    def may_choose(self, epoch: int) -> bool:
        """Once all steps are taken."""
        return epoch + 1 >= self.start_epoch + self.steps

    def state(self) -> dict[str, Any]:
        """Steps that were taken, and the shapes that they left."""
        return {"kind": KIND, "done": self.done, "resized": self.resized()}

    def resized(self) -> dict[str, list[int]]:
        """Shape of every tensor of the backbone that is smaller than it was."""
        return {} if self.context is None else changed_shapes(self.whole, self.context.backbone)

    def results(self) -> dict[str, Any]:
        """How much of the backbone is left."""
        assert self.context is not None  # see prepare
        names = {name for name, _ in self.context.backbone.named_parameters()}
        before = sum(torch.Size(shape).numel() for name, shape in self.whole.items() if name in names)
        after = sum(parameter.numel() for parameter in self.context.backbone.parameters())
        return {
            "kind": KIND,
            "note": f"{1 - after / before:.0%} of the backbone's {before:,} parameters went with their channels",
            "ratio": self.ratio,
            "importance": self.importance,
            "scope": self.scope,
            "backbone_parameters": [before, after],
            "smaller_tensors": len(self.resized()),
        }


class Readout(nn.Module):
    """The backbone with a layer behind its features, whose inputs tell the graph which channels these are."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.layer = nn.Linear(backbone.feature_size, 1).to(next(backbone.parameters()))

    def forward(self, x: Any) -> torch.Tensor:
        """(B, 1)."""
        return self.layer(self.backbone(x))


class Pruner:
    """One step of pruning on a backbone as it is now."""

    def __init__(self, backbone: Backbone, ratio: float, importance: str, scope: str, round_to: int) -> None:
        self.names = {module: name for name, module in backbone.named_modules()}
        tp = torch_pruning()
        importances = {
            "magnitude": tp.importance.GroupMagnitudeImportance(p=2),
            "taylor": tp.importance.GroupTaylorImportance(),
        }
        modes = {module: module.training for module in backbone.modules()}
        network = Readout(backbone).eval().requires_grad_(True)  # the graph is that of a backward pass
        inputs = backbone.example_inputs(1).to(next(backbone.parameters()).device)
        options: dict[str, Any] = {
            # The library's own defaults are dicts that all pruners share.
            **{"in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {}},
            **{"root_module_types": [nn.Conv1d, nn.Conv2d, nn.Linear], "forward_fn": lambda model, x: model(x)},
            **{"global_pruning": scope == "global", "round_to": round_to},
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Unwrapped parameters detected")  # layers tied to those stay whole
            graph = tp.DependencyGraph().build_dependency(network, inputs, forward_fn=options["forward_fn"])
            whole = [*unprunable(graph.get_all_groups(root_module_types=options["root_module_types"]), self.names)]
            self.pruner = tp.pruner.BasePruner(
                network, inputs, importances[importance], pruning_ratio=ratio, ignored_layers=whole, **options
            )
        self.pruner._round_to = dropped  # the library rounds down, so that of 24 channels a third leaves 8
        for module, mode in modes.items():
            module.training = mode

    def prune(self) -> int:
        """Leave channels out in place; returns the number of groups that lost some."""
        pruned = 0
        for group in self.pruner.step(interactive=True):
            if group[0].idxs:  # rounding may have left all
                group.prune()
                pruned += 1
        return pruned


def dropped(number: int, channels: int, round_to: int) -> int:
    """How many of the channels go, near a number, so that a multiple of `round_to` is left: the nearest one."""
    left = max(round_to, round_to * round((channels - number) / round_to))
    return max(0, channels - left)


def unprunable(groups: Iterable[Any], names: Mapping[nn.Module, str]) -> Iterator[nn.Module]:
    """Layers that have to keep their outputs: of features, of attention, and of groups with other layers or weights."""
    for group in groups:
        targets = [dependency.target for dependency, _ in group]
        layers = [target.module for target in targets if isinstance(target.module, nn.Module)]
        own = [layer for layer in layers if any(True for _ in layer.parameters())]
        fits = all(layer in names and isinstance(layer, RESIZABLE) for layer in own)
        attends = any(word in names.get(layer, "").lower() for layer in own for word in ATTENTION)
        loose = any(isinstance(target.module, nn.Parameter) for target in targets)
        if attends or loose or not fits:
            yield group[0].dep.target.module


def add_gradients(context: CompressionContext, samples: int) -> None:
    """Give parameters the gradient of the target's loss, summed over batches of training samples."""
    device = next(context.backbone.parameters()).device
    modes = {module: module.training for part in parts(context) for module in part.modules()}
    for part in parts(context):
        part.eval()
        part.zero_grad()
    with torch.enable_grad():
        for batch in context.samples(samples):
            moved = batch.to(device)
            logits = context.target_head(seen_by(context.target_head, context.backbone, moved.inputs))
            assert moved.labels is not None  # see graft.config.conflicts
            context.loss(logits, moved.labels).backward()
    for module, mode in modes.items():
        module.training = mode


def parts(context: CompressionContext) -> tuple[nn.Module, nn.Module]:
    """What the target goes through."""
    return context.backbone, context.target_head


def torch_pruning() -> Any:
    """The library; GraftError with how to install it."""
    try:
        import torch_pruning
    except ImportError:
        raise GraftError("compress=prune needs torch-pruning. Install it: pip install '.[compress]'") from None
    return torch_pruning

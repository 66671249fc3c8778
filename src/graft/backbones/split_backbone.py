"""A backbone cut in two: a first part that stays as it is, whose outputs can be kept, and the rest that trains."""

import hashlib
import math
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from graft.backbones.base import Backbone, prefixes
from graft.backbones.folding import fold_batchnorm, same

FEATURES = "features"  # the name of the cut behind the whole backbone


class SplitBackbone:
    """`finish(begin(inputs))` are the backbone's features `(B, D)`; `begin` needs no gradient and never changes."""

    def __init__(self, backbone: Backbone, name: str, before: Sequence[str] = (), fold: bool = True) -> None:
        """Split behind the module `name`; `before` are those that finish before it begins."""
        self.backbone = backbone
        self.name = name
        self.fold = fold
        self._skipped = {module: Skipped(backbone.get_submodule(module)) for module in before}

    @property
    def place(self) -> int:
        """How many modules come before: of two cuts of a backbone the one with more lies behind the other."""
        return sys.maxsize if self.whole else len(self._skipped)

    @property
    def subject(self) -> nn.Module:
        """What activations depend on, whose layers and code are part of the key under which they are kept."""
        return self.backbone

    @cached_property
    def first_part(self) -> nn.Module:
        """What computes activations: the backbone, or a copy without BatchNorm, made at first use."""
        return fold_batchnorm(self.backbone, self.backbone.example_inputs()) if self.fold else self.backbone

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample's activation."""
        if self.whole:
            return (self.backbone.feature_size,)
        return tuple(self.trunk(self.backbone.example_inputs(1)).shape[1:])

    @property
    def whole(self) -> bool:
        """Whether nothing of the backbone comes after it."""
        return self.name == FEATURES

    @torch.no_grad()
    def trunk(self, inputs: Any) -> Tensor:
        """Activations `(B, ...)` at the cut."""
        return self.trunk_all(inputs, ())[0]

    @torch.no_grad()
    def trunk_all(self, inputs: Any, earlier: Sequence["SplitBackbone"]) -> list[Tensor]:
        """Activations at this cut, and in the same pass at cuts that lie before it."""
        found: dict[str, Tensor] = {}

        def keep(name: str, output: Tensor) -> None:
            found[name] = output.clone()  # what comes next may work in place

        def keep_last(output: Tensor) -> None:
            found[self.name] = output
            raise Reached

        hooks = [
            self.first_part.get_submodule(cut.name).register_forward_hook(lambda _m, _x, y, cut=cut: keep(cut.name, y))
            for cut in earlier
        ]
        if not self.whole:
            last = self.first_part.get_submodule(self.name)
            hooks.append(last.register_forward_hook(lambda _m, _x, output: keep_last(output)))
        try:
            found[self.name] = self.first_part(inputs)
        except Reached:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return [found[cut.name] for cut in (self, *earlier)]

    def rest(self, activations: Tensor) -> Tensor:
        """Features `(B, D)` of activations `(B, ...)`, with gradients to what trains.

        The network runs as it is, but modules before the cut give values that are never looked at, at no cost.
        """
        if self.whole:
            return activations
        shape = self.backbone.input_shape
        assert shape is not None  # `find_split` cuts no other backbone
        with ExitStack() as stack:
            for name, skipped in self._skipped.items():
                stack.enter_context(replaced_forward(self.backbone.get_submodule(name), skipped))
            last = self.backbone.get_submodule(self.name)
            stack.enter_context(replaced_forward(last, lambda *_x, **_options: activations))
            return self.backbone(unknown((len(activations), *shape), activations))


class Reached(Exception):
    """Ends a forward pass that need not go on."""


class Skipped:
    """Stands for a module whose values nobody looks at: its outputs have the right shapes and are not computed.

    For input shapes that it has not seen yet it has to run the module once.
    """

    def __init__(self, module: nn.Module) -> None:
        self._forward = module.forward
        self._outputs: dict[tuple[torch.Size, ...], Any] = {}

    @torch.no_grad()
    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Outputs without values, in place of the module's forward."""
        shapes = tuple(x.shape for x in inputs if isinstance(x, Tensor))
        if shapes not in self._outputs:
            real = tree_map_only(Tensor, torch.clone, inputs)  # with separate memory, as layers may work in place
            outputs = self._forward(*real, **options)
            self._outputs[shapes] = tree_map_only(Tensor, lambda x: unknown(x.shape, x), outputs)
        return self._outputs[shapes]


def unknown(shape: Sequence[int], like: Tensor) -> Tensor:
    """A tensor of NaN that takes no memory: if anything depended on it, the result would show it."""
    return like.new_full((), math.nan if like.is_floating_point() else 0).expand(shape)


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module compute something else inside the block."""
    own = module.__dict__.get("forward")  # of a wrapped module, such as one that checkpoints its gradients
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def find_split(backbone: Backbone, active: Collection[str], fold: bool = True) -> SplitBackbone | None:
    """The last place before anything that is active (see `active_modules`); None where the first layer is.

    Every cut is tried on random inputs: where values bypass it, as in the middle of a residual block, it moves back.
    With `fold` the first part runs without BatchNorm: faster, and the same but for rounding.
    """
    if not active:
        return SplitBackbone(backbone, FEATURES, fold=fold)
    if (own := backbone.own_split(frozenset(active))) is not None:
        return own
    if backbone.input_shape is None:  # the rest could not be run without the inputs
        return None
    inputs = backbone.example_inputs()
    with eval_mode(backbone), torch.no_grad():
        expected, calls = trace(backbone, inputs)
        first = min((call.start for call in calls if call.name in active), default=0)
        done = outermost([call for call in calls if call.end < first])
        while done:
            *before, last = done
            cut = SplitBackbone(backbone, last.name, [call.name for call in before], fold)
            if last.gives_tensor and works(cut, inputs, expected):
                return cut
            done = before
    return None


def works(cut: SplitBackbone, inputs: Any, expected: Tensor) -> bool:
    """Whether a cut backbone gives the features of the whole one."""
    try:
        return same(cut.rest(cut.trunk(inputs)), expected)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError):  # of code that looks at values
        return False


def active_modules(backbone: Backbone, frozen: Collection[nn.Module], trained: Collection[str]) -> set[str]:
    """Names of the modules that train themselves or behave as in training; containers of such modules do not count.

    `frozen` are the modules in eval mode, `trained` the names of the trainable parameters, as in a strategy's phase.
    """
    fixed = {id(module) for module in frozen}
    stages = backbone.module_stages()
    owners = {name.rpartition(".")[0] for name in trained}
    return owners | {name for name in stages if id(backbone.get_submodule(name)) not in fixed}


@dataclass(frozen=True)
class Call:
    """One run of a module: where it starts and ends in the order of all starts and ends."""

    name: str
    start: int
    end: int
    gives_tensor: bool


def trace(backbone: Backbone, inputs: Any) -> tuple[Tensor, list[Call]]:
    """The features of some inputs, and every module's run in the order in which they end."""
    starts: dict[str, list[int]] = {}
    calls: list[Call] = []
    clock = iter(range(10**9))

    def enter(name: str) -> None:
        starts.setdefault(name, []).append(next(clock))

    def leave(name: str, output: Any) -> None:
        calls.append(Call(name, starts[name].pop(), next(clock), isinstance(output, Tensor)))

    hooks = []
    for name, module in backbone.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda _m, _x, name=name: enter(name)))
        hooks.append(module.register_forward_hook(lambda _m, _x, output, name=name: leave(name, output)))
    try:
        return backbone(inputs), calls
    finally:
        for hook in hooks:
            hook.remove()


def outermost(calls: Sequence[Call]) -> list[Call]:
    """The runs that are not inside another of them."""
    return [c for c in calls if not any(o.start < c.start and c.end < o.end for o in calls)]


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put every part into eval mode inside the block, and back into its own after it."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def weights_hash(backbone: Backbone, active: set[str] | frozenset[str]) -> str:
    """Hash of every parameter and buffer that stays as it is, the input's normalisation among them.

    With their strides: in another order of memory, such as channels_last, sums are rounded otherwise.
    """
    kept = [(n, t) for n, t in backbone.state_dict().items() if not active.intersection(prefixes(n)[:-1])]

    def digest(tensor: Tensor) -> bytes:
        return hashlib.sha256(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data).digest()

    with ThreadPoolExecutor() as pool:
        digests = pool.map(digest, (tensor for _, tensor in kept))
        described = (
            f"{n} {tuple(t.shape)} {t.stride()} {t.dtype} ".encode() + d
            for (n, t), d in zip(kept, digests, strict=True)
        )
        return hashlib.sha256(b"".join(described)).hexdigest()

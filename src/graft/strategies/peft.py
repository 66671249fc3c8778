"""Any tuner of the `peft` library on any backbone, such as LoHa or OFT; LoRA and (IA)^3 have files of their own."""

import copy
import difflib
import re
import warnings
from collections import OrderedDict
from collections.abc import Container, Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

import torch
from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.backbones.stages import network_outputs
from graft.errors import GraftError, first_line
from graft.strategies.base import Phase, Strategy, in_short, stage_names

AUTO = "auto"
ATTENTION = re.compile("attn|attention", re.IGNORECASE)  # in the name or class of a module
ADAPTABLE = (nn.Linear, nn.Conv2d)  # not nn.MultiheadAttention: peft 0.21 counts its output projection twice
CLOSE = 1e-4  # of the largest output: peft's own rounding is far below, a wrong merge far above
# Tuners that do not work on layers alone: they want tokens, task ids, calls in the training loop, or other layers.
UNSUITED = ("adalora", "adaption_prompt", "ln_tuning", "poly", "shadow", "trainable_tokens", "xlora")


def is_linear(layer: nn.Module) -> bool:
    """Whether a layer is linear; GPT-2's family in transformers has a class of its own, with weights turned round."""
    return isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"


def is_adaptable(layer: nn.Module) -> bool:
    """Whether a tuner may adapt layers of this kind."""
    return is_linear(layer) or isinstance(layer, ADAPTABLE)


class PeftStrategy(Strategy):
    """A tuner beside the pretrained layers: what it adds trains, and is folded into plain weights afterwards.

    `target_modules` are the layers to adapt: their names or ends of names, one regular expression for whole names, or
    `auto`, which takes the attention projections of transformers and all layers of other networks. `options` are
    the fields of the tuner's config class in peft.
    """

    freezes = True
    adds_layers = True

    def __init__(
        self,
        tuner: str,
        options: Mapping[str, Any] | None = None,
        target_modules: str | Sequence[str] = AUTO,
        train_bn: bool | None = None,
    ) -> None:
        super().__init__(train_bn)
        self.tuner = tuner
        self.options = {key: plain(value) for key, value in (options or {}).items()}
        self.target_modules = plain(target_modules)
        self.targets: list[str] = []  # names of the adapted layers in the network, once prepared
        self.added: frozenset[str] = frozenset()  # names of the parameters that train, once prepared
        self.config_class, self.model_class = find_tuner(tuner)
        self.config(["layer"])  # refuses wrong options now

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """One phase that trains what the tuner added to this prepared backbone, with the network's dropout on."""
        return [self.phase(epochs, backbone, stage_names(backbone), self.added)]

    def prepare(self, backbone: Backbone) -> None:
        """Put the tuner's layers in the place of those to adapt, which live on inside of them under `base_layer`."""
        self.targets = self.choose(backbone)
        self.inject(backbone.network, self.targets)
        self.note = f"{self.tuner} adapts {in_short(self.targets)}"
        self.added = frozenset(name for name, parameter in backbone.named_parameters() if parameter.requires_grad)

    def merge(self, backbone: Backbone) -> bool:
        """Fold the tuner into the weights of the layers that it adapts; they get back their old names."""
        try:
            unload(backbone.network)
        except ValueError as error:
            raise GraftError(f"strategy.tuner={self.tuner} cannot be merged: {first_line(error)}.") from error
        return True

    def config(self, targets: Sequence[str]) -> Any:
        """The tuner's config for exactly these layers."""
        known = [field.name for field in fields(self.config_class)]
        for option in self.options:
            if option not in known or option == "target_modules":
                closest = difflib.get_close_matches(option, known, n=1)
                hint = f" Did you mean {closest[0]}?" if closest else ""
                raise GraftError(
                    f"strategy.options: peft's {self.config_class.__name__} takes no {option!r} here.{hint} "
                    f"It takes {', '.join(sorted({*known} - {'target_modules'}))}."
                )
        try:
            return self.config_class(target_modules=exactly(targets), **self.options)
        except (TypeError, ValueError) as error:
            raise GraftError(f"strategy.tuner={self.tuner}, options {self.options}: {first_line(error)}.") from error

    def inject(self, network: nn.Module, targets: Sequence[str]) -> None:
        """Let peft replace these layers of the network; only what it adds requires a gradient afterwards."""
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "fan_in_fan_out is set to False"
            )  # GPT-2's layers: peft sets it by itself
            self.model_class(network, self.config(targets), "default")
        del network.peft_config  # peft's note for a second tuner beside the first

    # Which layers

    def choose(self, backbone: Backbone) -> list[str]:
        """Names of the layers to adapt; GraftError where none of them, or not all that were named, can be."""
        network = backbone.network
        called = {name for name, _ in network_outputs(backbone)}
        if self.target_modules == AUTO:
            names = [name for name, module in network.named_modules() if is_adaptable(module)]
        else:
            names = named_layers(network, self.target_modules)
        tried: dict[str, str] = {}
        refusals = {name: self.refusal(network, name, called, tried) for name in names}
        refused = [name for name in names if refusals[name]]
        targets = [name for name in names if not refusals[name]]
        if self.target_modules == AUTO:
            targets = self.automatic(network, targets)
        if not names:
            raise GraftError(
                f"strategy.target_modules={self.target_modules}: {backbone.name} has no linear layer and no 2d "
                f"convolution that {self.tuner} could adapt. Use strategy=adapter."
            )
        if not targets or (refused and self.target_modules != AUTO):
            examples = {type(network.get_submodule(name)): name for name in reversed(refused)}
            reasons = [f"\n  {name}, {network.get_submodule(name)}: {refusals[name]}" for name in examples.values()]
            raise GraftError(
                f"strategy.target_modules={self.target_modules}: {self.tuner} cannot adapt {len(refused)} of these "
                f"{len(names)} layers of {backbone.name}, such as{''.join(reasons)}\n"
                "Name other layers, change the tuner's options, or use strategy=adapter."
            )
        return targets

    def automatic(self, network: nn.Module, layers: Sequence[str]) -> list[str]:
        """Of the layers that the tuner can adapt: attention projections, or all layers where there is no attention.

        A transformer whose projections are none of them (torchvision's) has its other linear layers adapted.
        """
        if not has_attention(network):
            return list(layers)
        linear = [name for name in layers if is_linear(network.get_submodule(name))]
        return [name for name in linear if in_attention(network, name)] or linear

    def refusal(self, network: nn.Module, name: str, called: Container[str], tried: dict[str, str]) -> str:
        """Why the tuner cannot adapt a layer, empty where it can; `tried` keeps the answers for layers of one form."""
        layer = network.get_submodule(name)
        if not is_adaptable(layer):
            return "neither a linear layer nor a 2d convolution"
        if name not in called:
            return "the network reads its weights without calling it, so that a tuner would have no effect"
        form = f"{type(layer)} {layer}"
        if form not in tried:
            tried[form] = self.trial(layer)
        return tried[form]

    def trial(self, layer: nn.Module) -> str:
        """Why the tuner cannot adapt a layer, by trying it on a copy; empty where it can.

        It must start from the layer's own function and merge into plain weights. peft refuses some layers, accepts
        others wrongly (OFT on 3x3 convolutions), and says of some only when they merge (LoRA on grouped convolutions).
        """
        holder = nn.Sequential(OrderedDict(layer=copy.deepcopy(layer))).float().cpu()
        with torch.random.fork_rng(devices=()), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.default_generator.manual_seed(0)  # the answer must be the same when a run resumes
            x = trial_input(layer)
            pretrained = holder(x)
            try:
                self.inject(holder, ["layer"])
                holder.eval()
                trained = [parameter for parameter in holder.parameters() if parameter.requires_grad]
                start = holder(x)
                for parameter in trained:
                    parameter.add_(0.1 * torch.randn_like(parameter))
                tuned = holder(x)
                unload(holder)
                merged = holder(x)
            except GraftError:
                raise
            except Exception as error:  # peft has many errors for layers that a tuner was not made for
                return first_line(error)
        if not trained:
            return "it adds nothing that trains"
        if not close(start, pretrained):
            return "it does not start from the pretrained function (see the options for its initial values)"
        return "" if close(merged, tuned) else "it cannot be merged into the weights"


def find_tuner(name: str) -> tuple[Any, Any]:
    """A tuner's config class and model class in peft; GraftError with what there is, or how to install peft."""
    try:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
    except ImportError as error:
        raise GraftError(
            f'strategy.tuner={name} needs the peft package ({first_line(error)}): pip install ".[peft]"'
        ) from error
    tuners = {
        kind.value.lower(): (config, PEFT_TYPE_TO_TUNER_MAPPING[kind])
        for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()
        if PEFT_TYPE_TO_TUNER_MAPPING.get(kind) is not None and "target_modules" in {f.name for f in fields(config)}
    }
    known = sorted(tuners.keys() - set(UNSUITED))
    if name not in known:
        closest = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {closest[0]}?" if closest else ""
        raise GraftError(
            f"strategy.tuner={name} is no tuner of peft that adapts layers.{hint} Tuners: {', '.join(known)}."
        )
    return tuners[name]


def unload(network: nn.Module) -> None:
    """Merge every tuner layer into its base layer and put that back in its place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(network.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, layer.get_base_layer())


def named_layers(network: nn.Module, wanted: str | Sequence[str]) -> list[str]:
    """Names that one regular expression matches whole, or that are or end with one of a list; GraftError for none."""
    names = [name for name, _ in network.named_modules() if name]
    found: list[str] = []
    for part in [wanted] if isinstance(wanted, str) else wanted:
        pattern = part if isinstance(wanted, str) else rf"(.*\.)?{re.escape(part)}"
        try:
            matches = [name for name in names if re.fullmatch(pattern, name)]
        except re.error as error:
            raise GraftError(f"strategy.target_modules={wanted} is no regular expression: {error}.") from error
        if not matches:
            ends = [name.rpartition(".")[2] for name in names]
            closest = difflib.get_close_matches(part, dict.fromkeys([*ends, *names]), n=3, cutoff=0.5)
            raise GraftError(
                f"strategy.target_modules: the network has no layer {part!r}. Closest: {', '.join(closest) or 'none'}. "
                "Give names, ends of names or one regular expression for whole names, or use target_modules=auto."
            )
        found += matches
    return list(dict.fromkeys(found))


def has_attention(network: nn.Module) -> bool:
    """Whether the network is a transformer: a module named attention has its own linear layers."""
    return any(
        isinstance(module, nn.MultiheadAttention) or (is_linear(module) and in_attention(network, name))
        for name, module in network.named_modules()
    )


def in_attention(network: nn.Module, name: str) -> bool:
    """Whether a layer is one of those that an attention module is made of (`qkv`, `proj`, `query`, ...)."""
    parent = name.rpartition(".")[0]
    return bool(ATTENTION.search(f"{parent.rpartition('.')[2]} {type(network.get_submodule(parent)).__name__}"))


def exactly(names: Sequence[str]) -> str:
    """A regular expression for these names: in a list, peft would take `conv1` for the end of `layer1.0.conv1` too."""
    return "|".join(re.escape(name) for name in names)


def trial_input(layer: nn.Module) -> Tensor:
    """Random input of a layer, twice as wide as a convolution's kernel."""
    if isinstance(layer, nn.Linear):
        return torch.randn(2, 3, layer.in_features)
    if is_linear(layer):
        return torch.randn(2, 3, cast(Tensor, layer.weight).shape[0])
    assert isinstance(layer, nn.Conv2d)
    height, width = (2 * dilation * size for dilation, size in zip(layer.dilation, layer.kernel_size, strict=True))
    return torch.randn(2, layer.in_channels, height, width)


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two outputs are the same up to rounding."""
    return a.shape == b.shape and bool((a - b).abs().max() <= CLOSE * max(1e-6, float(b.abs().max())))


def plain(value: Any) -> Any:
    """A config's lists and mappings as Python's own, which peft asks for."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value

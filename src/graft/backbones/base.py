"""What every backbone offers: features of a known size, an input spec, stages, and where its weights come from."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from graft.backbones.outputs import Tokens, first_of, kept_outputs
from graft.data.samples import Modality
from graft.errors import GraftError, first_line
from graft.inputs.base import InputSpec
from graft.inputs.image.transform import ImageSpec
from graft.weights.input_conv import adapt_input_conv, spread_over_channels

COLUMNS, VOCABULARY = "columns.json", "vocabulary.json"  # files that stand for an argument of a backbone
NETWORK, TOKENIZER = "network", "tokenizer"  # and folders, whose path is the argument
HALF = (0.5, 0.5, 0.5)  # mean and std of a network without pretrained weights: inputs in [-1, 1]


@dataclass(frozen=True)
class Stage:
    """A part of a backbone that is frozen or trained as one; its members are all names that begin with a prefix."""

    name: str
    prefixes: tuple[str, ...]  # of parameter and module names as in `backbone.named_parameters()`

    def covers(self, name: str) -> bool:
        """Whether a parameter or module of that name belongs to the stage."""
        return any(name == prefix or name.startswith(f"{prefix}.") for prefix in self.prefixes)


class Backbone(nn.Module):
    """Inputs `(B, ...)` of one modality, which a subclass sets, to features `(B, D)`.

    Every parameter belongs to exactly one of `stages`, which go from input to output.
    """

    modality: Modality  # of the inputs, as in DomainData.modality
    pretrained_head: nn.Module | None  # features to the pretrained classes; no parameter
    wrapped: Mapping[str, Any] | None = None  # of a plain network, what made it a backbone (graft.backbones.contract)
    recurrent = False  # whether it reads its input step by step, in one direction or both
    counts_blocks = False  # whether `block_depths` is there
    embedding: str | None = None  # name of the tokens' embedding in `network`, where there is one
    named_inputs = False  # whether weights belong to inputs by name, so that a file's order says nothing
    parts: Mapping[str, "Backbone"] = MappingProxyType({})  # of a fusion, backbones by modality
    part_weights: Mapping[str, str | None] = MappingProxyType({})  # and where the weights of each come from
    new_stages: tuple[str, ...] = ()  # stages that nothing pretrained: they train under every strategy, as a head does
    fixed_stages: tuple[str, ...] = ()  # stages that never train, whatever the strategy
    layers: str | None = None  # name in the network of its list of layers, behind each of which features can be taken
    left_out: tuple[str, ...] = ()  # how names of the network's parameters begin that `backbone.layer` took away

    def __init__(self, name: str, network: nn.Module, *, feature_size: int, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.name = name
        self.network = network
        self.feature_size = feature_size
        self.stages = tuple(stages)
        self.set_pretrained_head(None)

    def forward(self, x: Any) -> Tensor:
        """Features `(B, D)` of inputs `(B, ...)`."""
        return self.network(x)

    def local(self, x: Any) -> dict[str, Tensor]:
        """What each stage puts out for inputs `(B, ...)`; GraftError for a backbone that has no maps or tokens."""
        raise GraftError(
            f"The {self.modality} backbone {self.name} gives features alone, and no maps or tokens by stage. Use a "
            "backbone for images, or a transformer, LSTM or GRU for texts."
        )

    def tokens(self, x: Any) -> Tokens:
        """The last vectors of single places or tokens for inputs `(B, ...)`; GraftError for a backbone without any."""
        outputs = [output for output in self.local(x).values() if output.ndim > 2]
        if not outputs:
            raise GraftError(f"The {self.modality} backbone {self.name} puts out no maps or tokens.")
        return Tokens.of_map(outputs[-1])

    def stage_outputs(self, x: Any, first: bool = False) -> dict[str, Tensor]:
        """What the last module of each stage puts out, with `first` the first of several values.

        Left out where it does not run, or puts out no tensor.
        """
        modules = {stage.name: self.output_module(stage.name) for stage in self.stages}
        with kept_outputs(self, list(modules.values())) as outputs:
            self(x)
        found = {stage: outputs.get(module) for stage, module in modules.items()}
        found = {stage: first_of(output) if first else output for stage, output in found.items()}
        return {stage: output for stage, output in found.items() if isinstance(output, Tensor)}

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of one input; None where inputs differ in shape."""
        return None

    @property
    def input_spec(self) -> InputSpec:
        """What the data must look like, which knows how to make it so."""
        raise NotImplementedError

    def example_inputs(self, samples: int = 2) -> Any:
        """Inputs of a number of samples, always the same ones, to try out what a network does with them."""
        raise NotImplementedError

    def set_normalisation_of(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the normalisation of inputs that loaded weights want; `tensors` are all of a file, by our names."""

    def fit_input_layer(self, name: str, tensor: Tensor) -> Tensor:
        """A file's tensor under one of the network's names, made to fit the inputs that the network takes."""
        return tensor

    def learned_from(
        self, arguments: Mapping[str, Any], tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], list[str]]:
        """The state dict of such a backbone trained on other data, described by `backbone_arguments`.

        What these data cannot have taught is as in this backbone, and has its names in the list.
        """
        return tensors, []

    def set_pretrained_head(self, pretrained_head: nn.Module | None) -> None:
        """Keep a pretrained head in eval mode beside the backbone: neither a parameter nor in the state dict."""
        if pretrained_head is not None:
            pretrained_head.requires_grad_(False).eval()
        object.__setattr__(self, "pretrained_head", pretrained_head)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Backbone":
        """Move the pretrained head with the backbone (`to`, `cuda`, `double`)."""
        if self.pretrained_head is not None:
            self.pretrained_head._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def stage_parameters(self, name: str) -> dict[str, nn.Parameter]:
        """Parameters of a stage by their name in the backbone."""
        stage = self._stage(name)
        return {key: parameter for key, parameter in self.named_parameters() if stage.covers(key)}

    def block_depths(self) -> dict[str, int]:
        """How many blocks further the head is than each parameter, by its name in the backbone."""
        raise NotImplementedError

    def stage_modules(self, name: str) -> list[nn.Module]:
        """Every module of a stage."""
        wanted = self._stage(name).name
        return [self.get_submodule(module) for module, stage in self.module_stages().items() if stage == wanted]

    def output_module(self, stage: str) -> str:
        """Name of the module whose output is a stage's: the last of those that make it up."""
        modules = dict(self.named_modules())
        return next(prefix for prefix in reversed(self._stage(stage).prefixes) if prefix in modules)

    def _stage(self, name: str) -> Stage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = ", ".join(stage.name for stage in self.stages)
        raise GraftError(f"Backbone {self.name} has no stage {name!r}. Stages: {known}.")

    def module_stages(self) -> dict[str, str]:
        """Stage of every module inside one by name; dropout and the like go with the layers before them."""
        owned = {prefix for name, _ in self.named_parameters() for prefix in prefixes(name)}
        found: dict[str, str] = {}
        current = self.stages[0].name
        for name, module in self.named_modules():
            stage = next((s.name for s in self.stages if s.covers(name)), None)
            if stage is not None:
                current = found[name] = stage
            elif name and not any(module.children()) and name not in owned:
                found[name] = current
        return found

    def own_split(self, active: frozenset[str]) -> Any:
        """A SplitBackbone that such a network brings itself, behind which are the `active` modules; None: it has none.

        See `graft.backbones.split_backbone.find_split`, which looks for a place by itself.
        """
        return None

    def weights_loaded(self) -> None:
        """Called on a network with `parts` once they have the weights that `part_weights` name."""

    def save_files(self, folder: Path) -> dict[str, str]:
        """Write into a folder what the constructor takes beside plain values, such as a tokenizer.

        Returns the arguments that these files stand for, and their names: COLUMNS or VOCABULARY, or NETWORK or
        TOKENIZER for a folder, whose path the constructor takes.
        """
        return {}

    # What a library knows about its weights

    def imagenet(self) -> tuple[str, dict[str, Tensor]]:
        """Where this network's ImageNet weights come from, and their tensors; GraftError where there are none."""
        raise GraftError(
            f"backbone.weights=imagenet: there are no ImageNet weights for {self.name}. "
            "Use backbone.weights=null, backbone.weights=source or a file, or another backbone."
        )

    def own_weights(self) -> tuple[str, dict[str, Tensor]]:
        """Where the weights come from that lie beside this network's description; GraftError where there are none."""
        raise GraftError(
            f"backbone.weights=pretrained: {self.name} is only a network and comes without weights. "
            "Use backbone.weights=imagenet, source, null or a file."
        )

    def convert(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file's tensors under this network's names and for this input size."""
        return tensors

    def inputs_missing_in(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Names of inputs that a file's tensors know nothing of, where weights belong to inputs by name."""
        return []

    def build_pretrained_head(self, tensors: dict[str, Tensor]) -> tuple[nn.Module | None, set[str]]:
        """The head that a file holds for these features, and the names it was made of."""
        return None, set()


class ImageBackbone(Backbone):
    """Images `(B, C, H, W)` to features `(B, D)`.

    The normalisation lives in two buffers, so that a saved backbone knows what it was trained on.
    """

    modality: Modality = "image"
    pretrained_mean: tuple[float, ...] = HALF  # what the library's weights for this network were trained on
    pretrained_std: tuple[float, ...] = HALF
    input_mean: Tensor  # `(C,)`, buffers
    input_std: Tensor

    def __init__(
        self,
        name: str,
        network: nn.Module,
        *,
        size: int,
        channels: int,
        feature_size: int,
        stages: Sequence[Stage],
        input_layers: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, network, feature_size=feature_size, stages=stages)
        self.size = (size, size)
        self.channels = channels
        self.input_layers = tuple(input_layers or first_convolution(network))  # names in the network
        self.register_buffer("input_mean", torch.empty(channels))
        self.register_buffer("input_std", torch.empty(channels))
        self.set_normalisation(HALF, HALF)

    def local(self, x: Tensor) -> dict[str, Tensor]:
        """Maps `(B, C, H, W)` of each stage; of transformers tokens `(B, N, D)`, of Swin `(B, H, W, C)`.

        A stage whose last module does not run, or puts out no tensor, is left out.
        """
        return self.stage_outputs(x)

    @property
    def input_spec(self) -> InputSpec:
        """What the images must look like; mean, std and the order of channels follow the weights that were loaded."""
        mean, std = (tuple(round(v, 6) for v in b.tolist()) for b in (self.input_mean, self.input_std))
        channels_last = any(weight.ndim == 4 and not weight.is_contiguous() for weight in self.parameters())
        return ImageSpec(self.channels, self.size, mean, std, channels_last)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape `(C, H, W)` of one image."""
        return (self.channels, *self.size)

    def example_inputs(self, samples: int = 2) -> Tensor:
        """Random images `(samples, C, H, W)`, always the same ones."""
        random = torch.Generator().manual_seed(0)
        return torch.randn(samples, *self.input_shape, generator=random).to(self.input_mean)

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take over the weights' normalisation; another number of channels gets the average of theirs."""
        self.input_mean.copy_(spread_over_channels(mean, self.channels))
        self.input_std.copy_(spread_over_channels(std, self.channels))

    def set_normalisation_of(self, tensors: Mapping[str, Tensor]) -> None:
        """That of a file written by Graft, else what the library's weights were trained on."""
        if "input_mean" in tensors and "input_std" in tensors:
            self.set_normalisation(tensors["input_mean"].tolist(), tensors["input_std"].tolist())
        else:
            self.set_normalisation(self.pretrained_mean, self.pretrained_std)

    def fit_input_layer(self, name: str, tensor: Tensor) -> Tensor:
        """The first convolution's weights for this number of channels."""
        if name.removesuffix(".weight") in self.input_layers and tensor.ndim == 4:
            return adapt_input_conv(tensor, self.channels)
        return tensor


def prefixes(name: str) -> list[str]:
    """Every dotted beginning of a name, itself included."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def first_convolution(network: nn.Module) -> tuple[str, ...]:
    """Name of the convolution that sees the image; none where there is no convolution."""
    return next(((name,) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)), ())


def linear_from(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with these weights `(K, D)` and biases `(K,)`; 1x1 convolutions count as linear."""
    weight = weight.flatten(1)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return linear


def refuse_unknown(library: str, name: str, known: Iterable[str]) -> NoReturn:
    """Raise GraftError for a model name that the library does not have, with what comes closest."""
    closest = difflib.get_close_matches(name, list(known), n=3)
    hint = f" Closest: {', '.join(closest)}." if closest else ""
    module = {"torchvision": "torchvision.models"}.get(library, library)
    raise GraftError(
        f"backbone.name={name}: {library} has no such classification model.{hint} "
        f"To list them: python -c 'import {module} as m; print(*m.list_models())'"
    )


def refuse_size(name: str, size: int, own_size: int, error: Any) -> NoReturn:
    """Raise GraftError for an image size that the network cannot take."""
    raise GraftError(
        f"backbone.size={size}: {name} cannot take images of {size} x {size} pixels ({first_line(error)}). "
        f"Its own size is {own_size}: set data.image_size={own_size}, or choose another backbone."
    )

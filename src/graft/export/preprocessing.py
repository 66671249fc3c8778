"""What an exported graph does with raw arrays before the network, and what somebody has to do before the graph."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.backbones.speech import MelImage, SpeakerMel
from graft.inputs.audio.transform import SpeechSpec, clipped
from graft.inputs.base import Fields, Inputs
from graft.inputs.columns import FIRST
from graft.inputs.fusion import PRESENT, named
from graft.inputs.image.boxes import LONGEST, MULTIPLE, BoxTransform
from graft.inputs.image.transform import ImageSpec, convert_channels
from graft.inputs.sequence import Sequences, SequenceSpec
from graft.inputs.table import TableRows, TableSpec
from graft.inputs.text import TextSpec
from graft.model.model import Model

BATCH, LENGTH, HEIGHT, WIDTH = "batch", "length", "height", "width"  # names of dimensions of any size
SHORTEST = 2  # samples of an example: torch.export takes a 1 for a constant
EXAMPLE_TOKENS = 12  # or steps, of an example


@dataclass(frozen=True)
class Input:
    """One array of a deployed network; a dimension is a size, or a name where it may have any."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Preprocessing(Protocol):
    """What a graph does with raw arrays before the network, and what somebody has to do before the graph."""

    inputs: tuple[Input, ...]
    before: str  # for people

    def raw(self, samples: Any) -> tuple[Tensor, ...]:
        """The arrays of some prepared samples, as a transform's `prepare` gives them by indices."""

    def example(self, samples: int) -> tuple[Tensor, ...]:
        """Arrays of made-up samples, always the same ones."""

    def __call__(self, *raw: Tensor) -> Inputs:
        """What the network takes; traced, so that it has no branches on values."""


class Pixels(nn.Module):
    """Normalises uint8 pixels, with a mean and a spread that travel in the graph."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.channels = spec.channels
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1))

    def normalised(self, image: Tensor) -> Tensor:
        """Images `(B, H, W, C)` as `(B, C, H, W)`."""
        return (image.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std


class ImagePreprocessing(Pixels):
    """Pixels to normalised channels first."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__(spec)
        self.size = spec.size
        self.inputs = (Input("image", "uint8", (BATCH, *spec.size, spec.channels)),)
        geometry = spec.transform().geometry
        whole = (
            f"resized so that its shorter side has {geometry.shorter} pixels, and cropped to its middle"
            if geometry.shorter > max(spec.size)
            else "resized"
        )
        self.before = (
            f"an image of {spec.channels} channels, values 0 to 255, bilinear with antialiasing {whole} to "
            f"{spec.size[0]} x {spec.size[1]}"
        )

    def raw(self, samples: Any) -> tuple[Tensor, ...]:
        """Images uint8 `(B, H, W, C)`."""
        return (convert_channels(samples, self.channels).permute(0, 2, 3, 1).contiguous(),)

    def example(self, samples: int) -> tuple[Tensor, ...]:
        """Noise."""
        shape = (samples, *self.size, self.channels)
        return (torch.randint(256, shape, generator=seeded(), dtype=torch.uint8),)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images `(B, C, H, W)`."""
        return self.normalised(image)


class BoxImagePreprocessing(Pixels):
    """Pixels of padded images to normalised channels first, with what is padding at 0."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__(spec)
        self.transform = BoxTransform(spec)
        image = Input("image", "uint8", (BATCH, HEIGHT, WIDTH, spec.channels))
        self.inputs = (image, Input("size", "int64", (BATCH, 2)))
        shorter = min(spec.size)
        self.before = (
            f"an image of {spec.channels} channels, values 0 to 255, bilinear with antialiasing resized so that its "
            f"shorter side has {shorter} pixels, or its longer one {LONGEST * shorter} where it is more than {LONGEST} "
            f"times as long; padded at the right and below to multiples of {MULTIPLE}. Images of a batch have one "
            f"padded size: more padding changes boxes. `size` is height and width without the padding"
        )

    def raw(self, samples: Any) -> tuple[Tensor, ...]:
        """Images uint8 `(B, H, W, C)` and their sizes `(B, 2)`."""
        images = [convert_channels(image.unsqueeze(0), self.channels)[0] for image in samples]
        sizes = torch.tensor([image.shape[1:] for image in images])
        return self.transform.padded(images).permute(0, 2, 3, 1).contiguous(), sizes

    def example(self, samples: int) -> tuple[Tensor, ...]:
        """Noise, of which the first image is smaller."""
        height, width = 2 * MULTIPLE, 3 * MULTIPLE
        shape = (samples, height, width, self.channels)
        sizes = torch.tensor([[height, width]]).repeat(samples, 1)
        sizes[0, 1] -= MULTIPLE // 2
        return torch.randint(256, shape, generator=seeded(), dtype=torch.uint8), sizes

    def forward(self, image: Tensor, size: Tensor) -> Tensor:
        """Normalised images `(B, C, H, W)`."""
        rows = torch.arange(image.shape[1]) < size[:, :1]
        columns = torch.arange(image.shape[2]) < size[:, 1:]
        inside = (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)
        return torch.where(inside, self.normalised(image), 0.0)


class TextPreprocessing(nn.Module):
    """Token ids as they are; the tokenizer lies beside the file."""

    before = "a text split by the tokenizer beside the file, shorter ones of a batch padded and masked with 0"
    inputs = tuple(Input(name, "int64", (BATCH, LENGTH)) for name in ("input_ids", "attention_mask"))

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.collate, self.size = spec.transform().collate, spec.tokenizer.size

    def raw(self, samples: Any) -> tuple[Tensor, ...]:
        """Ids and mask `(B, L)`."""
        fields = self.collate(samples)
        return tuple(fields[one.name] for one in self.inputs)

    def example(self, samples: int) -> tuple[Tensor, ...]:
        """Random tokens, some of which are padding in the first text."""
        ids = torch.randint(self.size, (samples, EXAMPLE_TOKENS), generator=seeded())
        mask = torch.ones_like(ids)
        mask[0, EXAMPLE_TOKENS // 2 :] = 0
        return ids, mask

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Fields:
        """Both by name."""
        return Fields({"input_ids": input_ids, "attention_mask": attention_mask})


class TablePreprocessing(nn.Module):
    """Numbers in their own unit, NaN where one is missing, and codes of categories."""

    before = (
        "numbers in the order of `numeric`, NaN where one is missing; codes: 0 missing, 1 unknown, then `categories`"
    )
    mean: Tensor
    std: Tensor
    median: Tensor

    def __init__(self, spec: TableSpec) -> None:
        super().__init__()
        numeric, categorical = spec.columns.numeric, spec.columns.categorical
        kinds = [("numbers", "float64", len(numeric)), ("codes", "int64", len(categorical))]
        self.inputs = tuple(Input(name, dtype, (BATCH, number)) for name, dtype, number in kinds if number)
        self.sizes = [FIRST + len(column.categories) for column in categorical]
        # In double precision: a year or an amount of money loses its digits in float32 before the mean is taken off.
        for name in ("mean", "std", "median"):
            values = torch.tensor([getattr(column, name) for column in numeric], dtype=torch.float64)
            self.register_buffer(name, values)

    def raw(self, samples: TableRows) -> tuple[Tensor, ...]:
        """Numbers `(B, n)` with the standardisation undone, and codes `(B, k)`; those of which there are columns."""
        numbers = samples.numbers.double() * self.std + self.mean
        return tuple({"numbers": numbers, "codes": samples.codes}[one.name] for one in self.inputs)

    def example(self, samples: int) -> tuple[Tensor, ...]:
        """Numbers around their means, one of which is missing, and random categories."""
        numbers = torch.randn(samples, len(self.mean), generator=seeded(), dtype=torch.float64)
        numbers[:1, :1] = torch.nan
        found = {"numbers": numbers * self.std + self.mean}
        if self.sizes:
            codes = [torch.randint(size, (samples,), generator=seeded()) for size in self.sizes]
            found["codes"] = torch.stack(codes, 1)
        return tuple(found[one.name] for one in self.inputs)

    def forward(self, *raw: Tensor) -> Fields:
        """Standardised numbers, marks of missing ones, codes."""
        given = {one.name: values for one, values in zip(self.inputs, raw, strict=True)}
        rows = raw[0].shape[0]
        numbers = given.get("numbers", torch.zeros(rows, 0, dtype=torch.float64))
        missing = numbers.isnan()
        numbers = (torch.where(missing, self.median, numbers) - self.mean) / self.std
        codes = given.get("codes", torch.zeros(rows, 0, dtype=torch.int64))
        return Fields({"numbers": numbers.float(), "missing": missing.float(), "codes": codes})


class SequencePreprocessing(nn.Module):
    """Values in their own unit and the lengths of the sequences."""

    before = "sequences in their own unit, shorter ones of a batch filled up to the longest"
    mean: Tensor
    scale: Tensor

    def __init__(self, spec: SequenceSpec, mean: Sequence[float], scale: Sequence[float]) -> None:
        super().__init__()
        values = Input("values", "float32", (BATCH, LENGTH, spec.input_size))
        self.inputs = (values, Input("lengths", "int64", (BATCH,)))
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("scale", torch.tensor(scale))

    def raw(self, samples: Sequences) -> tuple[Tensor, ...]:
        """Values `(B, L, D)` with the standardisation undone, and lengths `(B,)`."""
        longest = int(samples.lengths.max())
        scale = torch.where(self.scale > 0, 1 / self.scale, 0.0)
        return samples.values[:, :longest] * scale + self.mean, samples.lengths

    def example(self, samples: int) -> tuple[Tensor, ...]:
        """Noise, of which the first sequence is shorter."""
        lengths = torch.full((samples,), EXAMPLE_TOKENS)
        lengths[0] = EXAMPLE_TOKENS // 2
        return torch.randn(samples, EXAMPLE_TOKENS, len(self.mean), generator=seeded()), lengths

    def forward(self, values: Tensor, lengths: Tensor) -> Fields:
        """Standardised values and their mask."""
        mask = (torch.arange(values.shape[1]) < lengths[:, None]).long()
        values = torch.where(mask.bool().unsqueeze(-1), (values - self.mean) * self.scale, 0.0)
        return Fields({"values": values, "mask": mask})


class WavePreprocessing(nn.Module):
    """Waveforms of one length, of which the graph makes the spectrogram."""

    def __init__(self, spec: SpeechSpec) -> None:
        super().__init__()
        self.spec = spec
        wave = Input("waveform", "float32", (BATCH, spec.samples))
        # Only a loudness needs to know how much of a clip is sound, and an exporter drops what no node reads.
        self.takes_lengths = isinstance(spec.front, SpeakerMel)
        self.inputs = (wave, Input("lengths", "int64", (BATCH,))) if self.takes_lengths else (wave,)
        self.before = (
            f"sound at {spec.sample_rate} Hz between -1 and 1: the middle {spec.samples} samples of a recording, zeros "
            "behind a shorter one"
        )

    def raw(self, samples: Any) -> tuple[Tensor, ...]:
        """Clips `(B, T)`, and how many samples of each are sound where the network looks at that."""
        clips, lengths = clipped(samples, self.spec.samples, anywhere=False)
        return (clips, lengths) if self.takes_lengths else (clips,)

    def example(self, samples: int) -> tuple[Tensor, ...]:
        """Noise."""
        clips = 0.1 * torch.randn(samples, self.spec.samples, generator=seeded())
        return (clips, torch.full((samples,), self.spec.samples)) if self.takes_lengths else (clips,)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Inputs:
        """The spectrogram."""
        return self.spec.front(waveform, torch.zeros(1) if lengths is None else lengths)


class NoPreprocessing(nn.Module):
    """The arrays that the network takes, of a preprocessing that cannot be traced."""

    def __init__(self, spec: Any, backbone_example: Callable[[int], Inputs]) -> None:
        super().__init__()
        self.backbone_example, example = backbone_example, backbone_example(SHORTEST)
        self.collate = spec.transform().collate
        self.before = f"what this network was trained on: {spec!r}. Its preprocessing is not in the file"
        tensors = {"inputs": example} if isinstance(example, Tensor) else example.tensors
        self.inputs = tuple(
            Input(name, str(one.dtype).removeprefix("torch."), (BATCH, *one.shape[1:])) for name, one in tensors.items()
        )
        self.is_tensor = isinstance(example, Tensor)

    def raw(self, samples: Any) -> tuple[Tensor, ...]:
        """The network's inputs."""
        found = self.collate(samples)
        return (found,) if isinstance(found, Tensor) else tuple(found[one.name] for one in self.inputs)

    def example(self, samples: int) -> tuple[Tensor, ...]:
        """What the network takes for an example."""
        found = self.backbone_example(samples)
        return (found,) if isinstance(found, Tensor) else tuple(found[one.name] for one in self.inputs)

    def forward(self, *raw: Tensor) -> Inputs:
        """The same."""
        return raw[0] if self.is_tensor else Fields({one.name: v for one, v in zip(self.inputs, raw, strict=True)})


class FusionPreprocessing(nn.Module):
    """That of every part of a fusion, each with its own arrays, and which parts a sample has."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        own = [replace(one, name=named_in(name, one.name)) for name, part in parts.items() for one in part.inputs]
        self.inputs = (*own, Input(PRESENT, "bool", (BATCH, len(parts))))
        self.numbers = [len(part.inputs) for part in parts.values()]
        before = [f"{name}: {part.before}" for name, part in parts.items()]
        order = f"`{PRESENT}` is true where a sample has {', '.join(parts)}, in this order"
        self.before = ". ".join([*before, f"{order}; where it is false, any values may stand"])

    def raw(self, samples: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The arrays of every part, and `present` `(B, M)`."""
        each: dict[str, Any] = dict(self.parts)
        return (*(one for name, part in each.items() for one in part.raw(samples[name])), samples[PRESENT])

    def example(self, samples: int) -> tuple[Tensor, ...]:
        """Made-up samples, the first of which lacks the first part, where there is another."""
        each: list[Any] = [*self.parts.values()]
        present = torch.ones(samples, len(each), dtype=torch.bool)
        present[0, 0] = len(each) == 1
        return (*(one for part in each for one in part.example(samples)), present)

    def forward(self, *raw: Tensor) -> Fields:
        """Inputs of every part under their names."""
        *own, present = raw
        tensors: dict[str, Tensor] = {}
        for (name, part), number in zip(self.parts.items(), self.numbers, strict=True):
            tensors |= named(name, part(*own[:number]))
            own = own[number:]
        return Fields({**tensors, PRESENT: present})


def named_in(part: str, name: str) -> str:
    """What a part's array is called in a fusion's graph: `text.input_ids`, and `image` where both are the same."""
    return name if name == part else f"{part}.{name}"


def preprocessing_of(model: Model) -> Any:
    """What a graph does before the network: as much as can be traced."""
    if model.backbone.parts:
        parts = model.backbone.parts.items()
        return FusionPreprocessing({name: of_backbone(part, model.description.reading) for name, part in parts})
    if model.predicts_boxes:
        return BoxImagePreprocessing(cast(ImageSpec, model.backbone.input_spec))
    return of_backbone(model.backbone, model.description.reading)


def of_backbone(backbone: Backbone, reading: Mapping[str, Any]) -> Any:
    """The same for a backbone of one modality; `reading` says how its data were read."""
    spec: Any = backbone.input_spec
    if isinstance(spec, ImageSpec):
        return ImagePreprocessing(spec)
    if isinstance(spec, TextSpec):
        return TextPreprocessing(spec)
    if isinstance(spec, TableSpec):
        return TablePreprocessing(spec)
    if isinstance(spec, SequenceSpec):
        return SequencePreprocessing(spec, reading["mean"], reading["scale"])
    if isinstance(spec, SpeechSpec) and isinstance(spec.front, MelImage | SpeakerMel):
        return WavePreprocessing(spec)
    return NoPreprocessing(spec, backbone.example_inputs)


def seeded() -> torch.Generator:
    """Random numbers that are always the same."""
    return torch.Generator().manual_seed(0)

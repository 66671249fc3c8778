"""What backbones for speech have in common, and those over mel spectrograms: CNNs, and an LSTM that knows speakers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from graft.backbones.base import Backbone, ImageBackbone, Stage
from graft.backbones.recurrent import RecurrentLayer
from graft.backbones.stages import shapes_only
from graft.backbones.timm import TimmBackbone
from graft.backbones.torchvision import TorchvisionBackbone
from graft.config.types import Count, Positive
from graft.errors import GraftError, first_line
from graft.inputs.audio.mel import Mel, relative_decibels
from graft.inputs.audio.transform import SpeechSpec
from graft.inputs.base import Inputs

SPEAKER_RATE, SPEAKER_BANDS, SPEAKER_SIZE = 16_000, 40, 256  # resemblyzer's hparams.py
SPEAKER_MEL = Mel(SPEAKER_RATE, window=400, fft=400, hop=160, n_mels=SPEAKER_BANDS)
SPEAKER_LOUDNESS = 10 ** (-30 / 20)  # root mean square: -30 dB of full scale
TORCH_LSTM = re.compile(r"lstm\.(\w+)_l(\d)$")  # names of the weights of a torch.nn.LSTM of several layers


@dataclass(frozen=True)
class MelImage:
    """Log-mels as an image of one channel `(B, 1, bands, frames)`, normalised as a network of images wants it."""

    mel: Mel
    mean: float
    std: float

    frequency_dim = 2

    def __call__(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """The images of some clips."""
        return ((relative_decibels(self.mel(waves)) - self.mean) / self.std).unsqueeze(1)


@dataclass(frozen=True)
class SpeakerMel:
    """Mel power `(B, frames, 40)`, without a logarithm, of clips no quieter than -30 dB of full scale: resemblyzer's.

    Its voice detection, which shortens long silences, is left out.
    """

    frequency_dim = 2

    def __call__(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """The spectrograms of some clips."""
        power = waves.square().sum(1, keepdim=True) / lengths[:, None].clamp(min=1)
        louder = (SPEAKER_LOUDNESS / power.sqrt().clamp(min=1e-6)).clamp(min=1)
        return SPEAKER_MEL(waves * louder).transpose(1, 2)


class SpeechBackbone(Backbone):
    """Clips `(B, ...)` of one length, as `front` makes them, to features `(B, D)`."""

    modality = "audio"

    def example_inputs(self, samples: int = 2) -> Inputs:
        """Random inputs `(samples, *input_shape)`, always the same ones."""
        shape = self.input_shape
        assert shape is not None
        random = torch.Generator().manual_seed(0)
        return torch.randn(samples, *shape, generator=random).to(next(self.parameters()))


class MelNetwork(ImageBackbone):
    """Mixed into a backbone of images: a CNN over log-mels as images of one channel."""

    modality = "audio"

    def __init__(
        self,
        name: str,
        *,
        sample_rate: int,
        clip_seconds: float,
        n_mels: int,
        win_length_ms: float,
        hop_length_ms: float,
    ) -> None:
        """Pretrained filters of three colours are summed into one channel."""
        # The next in line is the library's backbone, which a subclass names after this one.
        super().__init__(name, channels=1)  # type: ignore[call-arg]
        window, hop = (round(sample_rate * ms / 1000) for ms in (win_length_ms, hop_length_ms))
        self.clip = round(sample_rate * clip_seconds)
        if not 1 <= hop <= window <= self.clip:
            raise GraftError(
                f"backbone.hop_length_ms={hop_length_ms:g} backbone.win_length_ms={win_length_ms:g} "
                f"backbone.clip_seconds={clip_seconds:g}: a hop may "
                "not be longer than a window, nor a window longer than a clip."
            )
        self.mel = Mel(sample_rate, window, 1 << (window - 1).bit_length(), hop, n_mels)
        self.size = (n_mels, self.clip // hop)
        check_any_size(self)

    @property
    def input_spec(self) -> SpeechSpec:
        """Clips as images; mean and std follow the weights that were loaded."""
        mean, std = (round(values.item(), 6) for values in (self.input_mean, self.input_std))
        image = MelImage(self.mel, mean, std)
        # Front declares a variable where only reading is meant, and this one is constant.
        return SpeechSpec(self.mel.sample_rate, self.clip, image)  # type: ignore[arg-type]


class MelTimm(MelNetwork, TimmBackbone):
    """A timm model over log-mels."""


class MelTorchvision(MelNetwork, TorchvisionBackbone):
    """A torchvision model over log-mels."""


LIBRARIES: dict[str, type[MelNetwork]] = {"timm": MelTimm, "torchvision": MelTorchvision}


def mel_backbone(
    name: str,
    library: Literal["timm", "torchvision"] = "timm",
    sample_rate: Annotated[int, Ge(1000)] = 16_000,
    clip_seconds: Positive = 1.0,
    n_mels: Count = 64,
    win_length_ms: Positive = 25.0,
    hop_length_ms: Positive = 16.0,
) -> ImageBackbone:
    """A model of a library of images, by its name there, over log-mels."""
    return LIBRARIES[library](
        name,
        sample_rate=sample_rate,
        clip_seconds=clip_seconds,
        n_mels=n_mels,
        win_length_ms=win_length_ms,
        hop_length_ms=hop_length_ms,
    )


def check_any_size(backbone: ImageBackbone) -> None:
    """Raise GraftError for a network that takes images of one size only; nothing is computed."""
    bands, frames = backbone.size
    try:
        with torch.no_grad():
            shapes_only(backbone.network)(torch.empty(1, 1, bands, frames, device="meta"))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise GraftError(
            f"backbone.name={backbone.name} cannot take spectrograms of {bands} bands and {frames} frames "
            f"({first_line(error)}). Use a convolutional network, such as backbone.name=tf_efficientnet_lite0, or "
            "more of backbone.n_mels and backbone.clip_seconds."
        ) from error


class SpeakerNetwork(nn.Module):
    """Mel power `(B, frames, 40)` to vectors `(B, 256)` of length 1, near for one speaker (Wan et al., ICASSP 2018)."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (SPEAKER_BANDS, SPEAKER_SIZE, SPEAKER_SIZE)
        self.layers = nn.ModuleList(RecurrentLayer("lstm", size, SPEAKER_SIZE, bidirectional=False) for size in sizes)
        self.linear = nn.Linear(SPEAKER_SIZE, SPEAKER_SIZE)

    def forward(self, mels: Tensor) -> Tensor:
        """Embeddings of some spectrograms."""
        lengths = torch.full((mels.shape[0],), mels.shape[1], device=mels.device)
        for layer in self.layers:
            mels = layer(mels, lengths)
        return F.normalize(F.relu(self.linear(mels[:, -1])), dim=1)


class SpeakerLSTM(SpeechBackbone):
    """The speaker encoder of resemblyzer, three LSTM layers over 16 kHz; stages are each layer and the linear one."""

    recurrent = True

    def __init__(self, name: str = "speaker_lstm", clip_seconds: Positive = 1.6) -> None:
        """The package's own clips have 1.6 seconds, with zeros behind shorter recordings."""
        parts = ("layers.0", "layers.1", "layers.2", "linear")
        stages: Sequence[Stage] = [Stage(part, (f"network.{part}",)) for part in parts]
        super().__init__(name, SpeakerNetwork(), feature_size=SPEAKER_SIZE, stages=stages)
        self.clip = round(SPEAKER_RATE * clip_seconds)
        if self.clip < SPEAKER_MEL.window:
            raise GraftError(
                f"backbone.clip_seconds={clip_seconds:g}: a clip is no shorter than a window of 0.025 seconds."
            )

    @property
    def input_shape(self) -> tuple[int, int]:
        """Frames and bands of a clip."""
        return (self.clip // SPEAKER_MEL.hop, SPEAKER_BANDS)

    @property
    def input_spec(self) -> SpeechSpec:
        """Clips as resemblyzer's network takes them."""
        return SpeechSpec(SPEAKER_RATE, self.clip, SpeakerMel())  # type: ignore[arg-type]  # as in MelNetwork

    def convert(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The package's names; what only its training used is left out."""
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("similarity_")}
        return {TORCH_LSTM.sub(r"layers.\2.forwards.\1_l0", name): tensor for name, tensor in kept.items()}

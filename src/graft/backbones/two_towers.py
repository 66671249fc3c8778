"""The image side of CLIP and the sound side of CLAP, through the projections into the space that texts share."""

import contextlib
import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graft.backbones.base import NETWORK, ImageBackbone
from graft.backbones.huggingface import imported_transformers, layer_stages, loaded, source_of
from graft.backbones.huggingface_audio import ExtractedFeatures
from graft.backbones.speech import SpeechBackbone
from graft.config.types import Positive
from graft.errors import GraftError
from graft.inputs.audio.transform import SpeechSpec

ADVICE = "a folder that transformers' save_pretrained wrote, {key}=<folder>"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's, where none is said
CHANNELS = 3


def side_of(name: str, kind: str, side: str) -> tuple[Any, str]:
    """The config of one side of a model of two towers, and where it is; GraftError for another model."""
    source = source_of(name)
    config = loaded(imported_transformers().AutoConfig, name, source, advice=ADVICE)
    own = getattr(config, f"{side}_config", config)
    if own.model_type != f"{kind}_{side}_model":
        raise GraftError(
            f"backbone.name={name}: {config.model_type} is no {kind.upper()}. Give a folder or a name of one, such as "
            f"{'openai/clip-vit-base-patch32' if kind == 'clip' else 'laion/clap-htsat-unfused'}."
        )
    own.projection_dim = getattr(config, "projection_dim", own.projection_dim)
    return own, source


def side_weights(kind: Any, name: str, source: str) -> dict[str, Tensor]:
    """The tensors of one side, without the library's list of those of the other."""
    logging = imported_transformers().utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return loaded(kind, name, source, advice=ADVICE).float().state_dict()
    finally:
        logging.set_verbosity(level)


def told_apart(config: Any) -> str:
    """What decides the features and is no module."""
    own = hashlib.sha256(config.to_json_string().encode()).hexdigest()[:16]
    return f"config={own}, transformers={version('transformers')}"


class CLIPImage(ImageBackbone):
    """CLIP's image encoder (Radford et al., ICML 2021), any that transformers reads; stages are its layers."""

    network: Any  # what transformers builds, which has no types

    def __init__(self, name: str) -> None:
        config, source = side_of(name, "clip", "vision")
        network = imported_transformers().CLIPVisionModelWithProjection(config)
        super().__init__(
            name,
            network,
            size=config.image_size,
            channels=CHANNELS,
            feature_size=config.projection_dim,
            stages=layer_stages(network, config.num_hidden_layers),
        )
        self._source = source
        self.pretrained_mean, self.pretrained_std = normalisation_of(name, source)
        self.set_normalisation(self.pretrained_mean, self.pretrained_std)

    def forward(self, x: Tensor) -> Tensor:
        """Projected features `(B, D)` of images, not of length 1."""
        return self.network(pixel_values=x).image_embeds

    def save_files(self, folder: Path) -> dict[str, str]:
        """The config of this side, in place of the name."""
        self.network.config.save_pretrained(folder / NETWORK)
        return {"name": NETWORK}

    def own_weights(self) -> tuple[str, dict[str, Tensor]]:
        """The weights of this side that lie beside the config."""
        kind = imported_transformers().CLIPVisionModelWithProjection
        return self.name, side_weights(kind, self.name, self._source)

    def extra_repr(self) -> str:
        """It tells cached features apart."""
        return told_apart(self.network.config)


def normalisation_of(name: str, source: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of pixels that the model's own preprocessing says; CLIP's where there is none beside it."""
    with contextlib.suppress(GraftError):
        processor = loaded(imported_transformers().AutoImageProcessor, name, source, advice=ADVICE)
        return tuple(processor.image_mean), tuple(processor.image_std)
    return MEAN, STD


class ClapFeatures(ExtractedFeatures):
    """CLAP's mel spectrograms `(B, C, frames, bands)` of ten seconds; a shorter sound is repeated."""

    def __init__(self, extractor: Any, samples: int, fused: bool) -> None:
        super().__init__(extractor, samples)
        self.truncation = "fusion" if fused else "rand_trunc"  # no clip is so long that it would be cut
        self.frequency_dim = 3

    def __call__(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """The spectrograms of some clips."""
        sounds = [wave[: max(1, length)].numpy() for wave, length in zip(waves, lengths.tolist(), strict=True)]
        options = {"truncation": self.truncation, "return_tensors": "pt"}
        found = self.extractor(sounds, sampling_rate=self.extractor.sampling_rate, **options)
        return found["input_features"].float()


class CLAPAudio(SpeechBackbone):
    """CLAP's sound encoder (Wu et al., ICASSP 2023), any that transformers reads; stages are those of its Swin."""

    network: Any  # what transformers builds, which has no types

    def __init__(self, name: str, clip_seconds: Positive = 10.0) -> None:
        """A recording longer than `clip_seconds` is cut, a shorter one repeated as CLAP's own preprocessing does."""
        config, source = side_of(name, "clap", "audio")
        extractor = loaded(imported_transformers("speech").AutoFeatureExtractor, name, source, advice=ADVICE)
        samples = round(clip_seconds * extractor.sampling_rate)
        if samples > extractor.nb_max_samples:
            raise GraftError(
                f"backbone.clip_seconds={clip_seconds:g}: {name} takes {extractor.max_length_s} seconds at most."
            )
        network = imported_transformers("speech").ClapAudioModelWithProjection(config)
        stages = layer_stages(network, len(config.depths))
        super().__init__(name, network, feature_size=config.projection_dim, stages=stages)
        self._features = ClapFeatures(extractor, samples, config.enable_fusion)
        self.spec = SpeechSpec(extractor.sampling_rate, samples, self._features)
        self._source = source
        frames = extractor.nb_max_samples // extractor.hop_length + 1
        self._shape = (4 if config.enable_fusion else 1, frames, extractor.feature_size)

    @property
    def input_spec(self) -> SpeechSpec:
        """Clips as the model's feature extractor makes them."""
        return self.spec

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels, frames and bands."""
        return self._shape

    def forward(self, x: Tensor) -> Tensor:
        """Projected features `(B, D)` of spectrograms, not of length 1."""
        # None was longer than what is seen; not len(), which would tie an exported graph to one size.
        whole = torch.zeros(x.shape[0], 1, dtype=torch.bool, device=x.device)
        return self.network(input_features=x, is_longer=whole).audio_embeds

    def save_files(self, folder: Path) -> dict[str, str]:
        """The config of this side and the feature extractor's, in place of the name."""
        self.network.config.save_pretrained(folder / NETWORK)
        self._features.extractor.save_pretrained(folder / NETWORK)
        return {"name": NETWORK}

    def own_weights(self) -> tuple[str, dict[str, Tensor]]:
        """The weights of this side that lie beside the config."""
        kind = imported_transformers("speech").ClapAudioModelWithProjection
        return self.name, side_weights(kind, self.name, self._source)

    def extra_repr(self) -> str:
        """It tells cached features apart."""
        return told_apart(self.network.config)

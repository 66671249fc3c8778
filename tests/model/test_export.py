"""`graft export`: files of other formats that answer as the run's network does, on the run's own test samples."""

import json
import signal
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import graft
from graft.cli.main import main
from graft.errors import GraftError
from graft.export import write
from graft.export.write import export
from graft.model import predictions
from graft.report.temperature import tempered
from tests.backbones.test_causal_lm import CONFIGS as CAUSAL
from tests.backbones.test_huggingface_seq2seq import CONFIGS as SEQ2SEQ
from tests.backbones.test_whisper import whisper
from tests.networks_on_disk import write_clap, write_clip, write_language_model


@pytest.fixture
def run(whole_run):
    return whole_run


def opened(file):
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def test_a_run_as_onnx_with_what_prepares_inputs_and_what_was_measured(run, photos, tmp_path, capsys):
    folder = run(*photos, "strategy=scratch")
    capsys.readouterr()
    to = tmp_path / "out" / "photos.onnx"
    assert main(["export", f"run={folder}", "format=onnx", f"to={to}"]) == 0
    out = capsys.readouterr().out
    kept = predictions.read(folder / "predictions.parquet")["target"]
    assert f"the same on {len(kept['sample'])} test samples" in out
    assert [path.name for path in to.parent.iterdir()] == ["photos.onnx"]

    session = opened(to)
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["graft"])
    assert metadata["classes"] == ["cat", "dog"]
    assert metadata["checked"]["difference"] < 1e-5
    assert metadata["score"]["n"] == len(kept["sample"])
    assert metadata["score"]["value"] == pytest.approx(np.mean(np.equal(kept["label"], kept["prediction"])))
    (wanted,) = session.get_inputs()
    assert (wanted.name, wanted.type, wanted.shape) == ("image", "tensor(uint8)", ["batch", 16, 16, 3])

    spec = graft.load_run(folder).backbone.input_spec
    samples = [torch.from_numpy(np.array(picture(name))).permute(2, 0, 1) for name in kept["sample"]]
    pixels = spec.transform().geometry.batch(samples).permute(0, 2, 3, 1).numpy()
    calibrated = tempered(np.array(kept["probabilities"]), metadata["temperature"])
    np.testing.assert_allclose(session.run(None, {"image": pixels})[0], calibrated, atol=1e-4)
    assert session.run(None, {"image": pixels[:1]})[0].shape == (1, 2)


def picture(name):
    return Image.open(name).convert("RGB")


def test_nothing_is_kept_of_a_file_that_answers_otherwise_or_was_stopped(stored, photos, tmp_path, monkeypatch, capsys):
    folder, to = stored(*photos, "strategy=scratch"), tmp_path / "out" / "photos.safetensors"
    exported = export(folder, "safetensors", to, None, ())
    assert "made-up samples (the model stands alone, without its run)" in exported.lines[1]
    assert sorted(path.name for path in to.parent.iterdir()) == ["photos.json", "photos.safetensors"]
    monkeypatch.setattr(write, "TOLERANCE", -1.0)
    other = tmp_path / "other" / "photos.safetensors"
    with pytest.raises(GraftError, match=r"answers otherwise than the run's network, by 0 on 5 made-up samples"):
        export(folder, "safetensors", other, None, ())
    assert [*other.parent.iterdir()] == []
    monkeypatch.setattr(write, "largest_difference", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert main(["export", f"run={folder}", "format=safetensors", f"to={other}"]) == 143
    assert "Stopped by SIGTERM. Nothing was written." in capsys.readouterr().err
    assert [*other.parent.iterdir()] == []


def test_calibration_is_in_the_answers(stored, photos, tmp_path):
    folder = stored(*photos, "strategy=scratch")
    deployed = write.Deployed(write.load(folder))
    (raw,) = deployed.preprocessing.example(3)
    plain = deployed(raw)
    deployed.temperature = 2.0
    torch.testing.assert_close(deployed(raw), (plain.log() / 2).softmax(-1))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "graft export run=<folder>"),
        (["run=x"], "graft export run=<folder>"),
        (["run=x", "format=onnx", "inptu=z"], "'inptu=z' is none of its keys"),
        (["run=x", "format=tflite"], "format=tflite: must be one of onnx, torch_export, safetensors, huggingface"),
        (["run=x", "format=safetensors", "int8=static"], "int8=static goes with format=onnx"),
        (["run=nowhere", "format=safetensors"], "nowhere: there is no such folder"),
    ],
)
def test_mistakes_are_named(arguments, said, capsys):
    assert main(["export", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_what_a_format_cannot_hold_is_named(stored, photos, tmp_path):
    folder = stored(*photos, "strategy=scratch")
    with pytest.raises(GraftError, match=r"format=huggingface: lenet .* is a network of neither"):
        export(folder, "huggingface", None, None, ())
    with pytest.raises(GraftError, match=r"int8=static: the model stands alone"):
        export(folder, "onnx", None, "static", ())
    with pytest.raises(GraftError, match=r"that is there already"):
        export(folder, "safetensors", tmp_path, None, ())


OPEN = [
    *("data/domain@data.source=digits", "data.source_classes=[0,1,2]"),
    *("data/domain@data.target=digits", "data.target_classes=[1,2,3]"),
    *("data.label_sets=open", "data.target_setting=unsupervised", "data.labels_per_class=null", "data.image_size=16"),
    *("task=open_set", "objective.alpha=1", "selection=last", "strategy=scratch", "backbone=lenet"),
]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["probability", "entropy"])
def test_a_network_of_an_open_set_says_when_an_answer_is_unknown(run, tmp_path, by):
    folder = run(*OPEN, f"task.rejection={by}", "task.rejected_fraction=0.3")
    assert "test samples" in export(folder, "onnx", tmp_path / "open.onnx", None, ()).lines[1]
    session = opened(tmp_path / "open.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["graft"])
    assert (about["classes"], about["unknown"]["name"], about["temperature"]) == (["0", "1", "2"], "unknown", 1.0)

    kept = predictions.read(folder / "predictions.parquet")["target"]
    p = np.array(kept["probabilities"])
    certainty = p.max(axis=1) if by == "probability" else (p * np.log(p)).sum(axis=1)
    decided = [
        about["unknown"]["name"] if sure < about["unknown"]["below"] else about["classes"][row.argmax()]
        for sure, row in zip(certainty, p, strict=True)
    ]
    assert decided == kept["prediction"]
    assert "unknown" in decided
    digits = torch.zeros(2, 16, 16, 1, dtype=torch.uint8).numpy()
    assert session.run(None, {"image": digits})[0].shape == (2, 3)


# Every kind of network. They are built and not trained: what is compared is what a graph computes


@pytest.fixture
def own_network(tiny_bert, tmp_path):
    """Of an option without a network of its own the keys of a random one in a folder."""

    def keys(backbone):
        folder = tmp_path / "network"
        if backbone == "whisper":
            whisper(folder)
            return [f"backbone.name={folder}", "backbone.clip_seconds=0.25"]
        if backbone == "clip_image":
            return [f"backbone.name={write_clip(folder)}"]
        if backbone == "clap_audio":
            return [f"backbone.name={write_clap(folder)}", "backbone.clip_seconds=0.5"]
        kind, config = LANGUAGE_MODELS[backbone]
        return [f"backbone.name={write_language_model(folder, tiny_bert, kind, config())}", "backbone.max_length=16"]

    return keys


@pytest.fixture
def data(photos, reviews, people, tones, tiny_bert, tiny_wav2vec2, tmp_path):
    """Overrides of the data for each modality."""
    random = np.random.default_rng(0)
    walks = random.normal(3, 2, (60, 5, 3)).astype(np.float32)
    np.savez(tmp_path / "walks.npz", sequences=walks, lengths=np.arange(60) % 4 + 2, labels=np.arange(60) % 2)
    file = f"data.target.file={tmp_path / 'walks.npz'}"
    pattern = r"data.target.pattern='(?P<label>[a-z]+)_(?P<speaker>[a-z]+)_(?P<index>\d+)'"
    fractions = ("data.target.val_fraction=0.3", "data.target.test_fraction=0.3")
    speech = ["data=speech", f"data.target.root={tones}", pattern, *fractions]
    return {
        "image": photos,
        "text": reviews[0],
        "table": people[0],
        "audio": speech,
        "wav2vec2": [*speech, f"backbone.name={tiny_wav2vec2}", "backbone.clip_seconds=0.25"],
        "sequence": ["data=sequences", "data/domain@data.target=sequence_arrays", file],
        "bert": [*reviews[0], f"backbone.name={tiny_bert}", "backbone.max_length=32"],
    }


NETWORKS = [
    *(("image", name) for name in ("lenet", "resnet18", "mobilenet_v2", "vit", "convnext")),
    *(("image", f"efficientnet_lite{number}") for number in range(3)),
    *(("image", name) for name in ("cnn", "resnet50", "vgg16", "timm", "torchvision")),
    *(("text", name) for name in ("lstm", "gru")),
    ("bert", "bert"),
    *(("text", name) for name in ("causal_lm", "seq2seq")),
    *(("audio", name) for name in ("mel_cnn", "mel_mobilenet_v2", "speaker_lstm")),
    ("wav2vec2", "wav2vec2"),
    *(("table", name) for name in ("mlp", "ft_transformer")),
    *(("audio", name) for name in ("whisper", "clap_audio")),
    ("image", "clip_image"),
    *(("sequence", name) for name in ("lstm_sequence", "gru_sequence")),
]
LANGUAGE_MODELS = {"causal_lm": ("CausalLM", CAUSAL["llama"]), "seq2seq": ("Seq2SeqLM", SEQ2SEQ["t5"])}
IN_FOLDERS = ("causal_lm", "seq2seq", "whisper", "clap_audio", "clip_image")  # networks of somebody else's
NAMES = {"timm": "test_resnet", "torchvision": "shufflenet_v2_x0_5"}  # of options that leave it open


def test_no_backbone_is_left_out():
    options = {file.stem for file in (Path(__file__).parents[2] / "conf" / "backbone").glob("*.yaml")}
    assert {backbone for _, backbone in NETWORKS} == options - {"fusion"}  # see below


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "backbone"), NETWORKS, ids=lambda one: one)
def test_every_backbone_in_every_format_that_traces_or_stores_it(stored, data, own_network, kind, backbone, tmp_path):
    own = ["data.image_size=32"] if kind == "image" and backbone not in ("lenet", "clip_image") else []
    own += own_network(backbone) if backbone in IN_FOLDERS else []
    own += [f"backbone.name={NAMES[backbone]}"] if backbone in NAMES else []
    folder = stored(*data[kind], f"backbone={backbone}", "strategy=scratch", *own)
    for form in ("onnx", "torch_export", "safetensors"):
        exported = export(folder, form, tmp_path / "out" / f"model{write.ENDINGS[form]}", None, ())
        assert "the same on 5 made-up samples" in exported.lines[1]
    sizes = {one.name: one.shape for one in opened(tmp_path / "out" / "model.onnx").get_inputs()}
    assert {shape[0] for shape in sizes.values()} == {"batch"}
    beside = {"text": "model.vocabulary.json", "bert": "model.tokenizer.json"}
    if kind in beside:
        assert (tmp_path / "out" / beside["bert" if backbone in LANGUAGE_MODELS else kind]).is_file()


NAMED = {  # heads whose rows are vectors of the classes' names
    "encoder": ["head=class_names", "strategy=zero_shot", "head.projection=none", "head.tower.size=12"],
    "cross_modal": ["head=cross_modal", "strategy=probe", "head.projection=none", "head.tower.size=12"],
    "characters": [
        *("head=class_names", "strategy=scratch", "backbone.weights=null"),
        *("head.tower.size=8", "head.tower.hidden=8"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMED)
def test_a_head_of_class_names_goes_along_without_what_read_them(stored, photos, tmp_path, kind):
    folder = write_clip(tmp_path / "clip")
    options = [*photos, "backbone=clip_image", f"backbone.name={folder}", "backbone.weights=pretrained"]
    options += [*NAMED[kind], f"head/tower={'characters' if kind == 'characters' else 'encoder'}"]
    if kind != "characters":
        options += [f"head.tower.name={folder}", "head.names={cat: zero, dog: one}"]
    folder = stored(*options)
    for form in ("onnx", "torch_export", "safetensors"):
        exported = export(folder, form, tmp_path / "out" / f"model{write.ENDINGS[form]}", None, ())
        assert "the same on 5 made-up samples" in exported.lines[1]
    assert [one.name for one in opened(tmp_path / "out" / "model.onnx").get_inputs()] == ["image"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "backbone"), [("text", "lstm"), ("table", "mlp"), ("sequence", "lstm_sequence")])
def test_a_run_of_every_modality_is_compared_on_its_own_samples(run, data, kind, backbone, tmp_path):
    """Preprocessing in the graph against the run's own, lengths that differ and values that are missing with it."""
    folder = run(*data[kind], f"backbone={backbone}", "strategy=scratch")
    assert "test samples" in export(folder, "onnx", tmp_path / "one.onnx", None, ()).lines[1]


@pytest.mark.slow
def test_recordings_go_in_as_waveforms(run, data, tmp_path):
    folder = run(*data["audio"], "backbone=mel_cnn", "backbone.name=test_resnet", "strategy=scratch")
    assert "test samples" in export(folder, "onnx", tmp_path / "one.onnx", None, ()).lines[1]
    (wave,) = opened(tmp_path / "one.onnx").get_inputs()
    assert (wave.name, wave.shape) == ("waveform", ["batch", 16_000])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "backbone", "int8"), [("image", "resnet18", "static"), ("bert", "bert", "dynamic")])
def test_eight_bits(run, data, kind, backbone, int8, tmp_path):
    folder = run(*data[kind], f"backbone={backbone}", "strategy=scratch")
    exported = export(folder, "onnx", tmp_path / "small.onnx", int8, ())
    assert f"int8 ({int8})" in exported.lines[-1]
    assert sorted(path.name for path in tmp_path.glob("small*")) == [
        "small.onnx",
        *(["small.tokenizer.json"] if kind == "bert" else []),
    ]
    metadata = json.loads(opened(tmp_path / "small.onnx").get_modelmeta().custom_metadata_map["graft"])
    before, after = metadata["int8"]["sizes"]
    assert after < (0.35 if kind == "image" else 0.9) * before
    assert metadata["score"]["n"] == metadata["int8"]["before"]["n"]


@pytest.mark.slow
def test_a_folder_that_timm_opens(run, data, tmp_path):
    import timm

    folder = run(*data["image"], "backbone=timm", "backbone.name=test_resnet", "data.image_size=32", "strategy=scratch")
    to = tmp_path / "timm"
    assert "test samples" in export(folder, "huggingface", to, None, ()).lines[1]
    network = timm.create_model(f"local-dir:{to}", pretrained=True)
    assert network.num_classes == 2
    assert json.loads((to / "config.json").read_text())["label_names"] == ["cat", "dog"]


@pytest.mark.slow
def test_a_folder_that_transformers_open(run, data, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    folder = run(*data["bert"], "backbone=bert", "backbone.weights=pretrained", "strategy=lora")
    to = tmp_path / "bert"
    assert "test samples" in export(folder, "huggingface", to, None, ()).lines[1]
    tokens = AutoTokenizer.from_pretrained(to)(["a good film"], return_tensors="pt")
    assert AutoModel.from_pretrained(to)(**tokens).last_hidden_state.shape[0] == 1
    assert Path(to, "head.safetensors").is_file()

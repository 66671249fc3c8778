"""CLIP and CLAP from folders: our features, rows and scores against those of transformers, and a whole run of them."""

import shutil

import pytest
import torch
from small_run import train_in

import graft
from graft.backbones.two_towers import CLAPAudio, CLIPImage
from graft.config.conflicts.zero_shot import learned_names
from graft.errors import GraftError
from graft.heads.base import HeadContext
from graft.heads.class_names import ClassNamesHead
from graft.heads.towers import encoder
from graft.heads.towers.encoder import Encoder
from graft.weights.loading import load_weights

CLASSES = ("zero", "one", "two", "three")
TEMPLATES = ("a photo of the {}", "{}")


def head_of(folder, backbone, **keys):
    tower = Encoder(str(folder), size=backbone.feature_size)
    context = HeadContext(backbone.feature_size, len(CLASSES), CLASSES)
    head = ClassNamesHead(context, tower, **{"projection": "none", "templates": TEMPLATES, **keys})
    head.ask_tower()
    return head


def rows_of(model, folder):
    """The vectors of the classes by transformers alone, in double precision."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    for name in CLASSES:
        each = []
        for template in TEMPLATES:
            tokens = tokenizer([template.format(name)], return_tensors="pt")
            found = model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output[0]
            each.append(found / found.norm())
        mean = torch.stack(each).mean(0)
        rows.append(mean / mean.norm())
    return torch.stack(rows)


@torch.no_grad()
def test_clip_scores_images_as_transformers_does(clip_folder):
    import transformers

    backbone = CLIPImage(str(clip_folder))
    load_weights(backbone, "pretrained")
    backbone.eval().double()
    head = head_of(clip_folder, backbone).double()
    model = transformers.CLIPModel.from_pretrained(clip_folder).eval().double()
    images = torch.randint(256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    inputs = backbone.input_spec.transform()(images).double()
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.25])
    own = (images.double() / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(inputs, own, rtol=0, atol=1e-5)  # the folder's own normalisation
    features = model.get_image_features(inputs).pooler_output
    torch.testing.assert_close(backbone(inputs), features, rtol=1e-12, atol=1e-12)
    rows = rows_of(model, clip_folder)
    torch.testing.assert_close(head.vectors(), rows, rtol=0, atol=1e-6)
    expected = model.logit_scale.exp() * features / features.norm(dim=1, keepdim=True) @ rows.T
    torch.testing.assert_close(head(backbone(inputs)), expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_clap_scores_sounds_as_transformers_does(clap_folder):
    import transformers

    backbone = CLAPAudio(str(clap_folder), clip_seconds=0.5)
    load_weights(backbone, "pretrained")
    backbone.eval()
    model = transformers.ClapModel.from_pretrained(clap_folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(clap_folder)
    sound = 0.1 * torch.randn(2500, generator=torch.Generator().manual_seed(0))
    inputs = backbone.input_spec.transform().collate([sound])
    own = extractor([sound.numpy()], sampling_rate=8000, return_tensors="pt")
    torch.testing.assert_close(inputs, own["input_features"].float())
    features = model.get_audio_features(own["input_features"].float(), is_longer=own["is_longer"]).pooler_output
    found = torch.nn.functional.normalize(backbone(inputs), dim=1)
    torch.testing.assert_close(found, features, rtol=0, atol=1e-5)
    torch.testing.assert_close(head_of(clap_folder, backbone).vectors(), rows_of(model, clap_folder), rtol=0, atol=1e-5)
    assert backbone(backbone.example_inputs(2)).shape == (2, backbone.feature_size)


def test_many_texts_are_encoded_some_at_a_time(clip_folder, monkeypatch):
    tower, texts = Encoder(str(clip_folder), size=12), [f"a photo of {'a ' * number}zero" for number in range(5)]
    whole, sizes = tower(texts), []
    vectors = Encoder._vectors
    monkeypatch.setattr(encoder, "AT_ONCE", 2)
    monkeypatch.setattr(Encoder, "_vectors", lambda self, some: (sizes.append(len(some)), vectors(self, some))[1])
    torch.testing.assert_close(tower(texts), whole)
    assert sizes == [2, 2, 1]


def test_other_models_and_other_sizes_are_refused(clip_folder, clap_folder):
    with pytest.raises(GraftError, match="clap is no CLIP"):
        CLIPImage(str(clap_folder))
    with pytest.raises(GraftError, match="takes 1 seconds at most"):
        CLAPAudio(str(clap_folder), clip_seconds=2.0)
    head = ClassNamesHead(HeadContext(7, 4, CLASSES), Encoder(str(clip_folder), size=7), projection="none")
    with pytest.raises(GraftError, match=r"Set head\.tower\.size=12"):
        head.ask_tower()
    with pytest.raises(GraftError, match=r"Set head\.tower\.size=5"):
        ClassNamesHead(HeadContext(5, 4, CLASSES), Encoder(str(clip_folder), size=7), projection="none")


def test_a_run_without_a_label_tests_clip_and_its_model_needs_the_folder_no_more(clip_folder, tmp_path):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    results = train_in(
        tmp_path,
        *("data/domain@data.target=digits", "data.source=null", "trainer=cpu", "logger=[]", "save.neighbours=false"),
        *("backbone=clip_image", f"backbone.name={folder}", "backbone.weights=pretrained", "strategy=zero_shot"),
        *("head/tower=encoder", f"head.tower.name={folder}", "head.tower.size=12", "head.projection=none"),
        "head.names={0: zero, 1: one, 2: two, 3: three}",
    )
    assert results["labels"] == {"training": 0, "choosing": 0}
    assert results["parameters"]["trainable"] == 0
    assert results["cost"]["target_steps"] == 0
    shutil.rmtree(folder)
    model = graft.load_run(tmp_path / "run")
    assert model.head.texts[1] == ("one",)
    with torch.no_grad():
        expected = ClassNamesHead.vectors_by(Encoder(str(clip_folder), size=12), [["one"], ["4"]])
    torch.testing.assert_close(model.head.vectors([1, 4]), expected)  # those that the run was tested with
    matrix = torch.tensor(results["confusion"]["test/target"]["matrix"])
    assert results["score"]["value"] == pytest.approx(float(matrix.trace() / matrix.sum()))
    assert model.description.backbone.get("name") is None


def test_what_has_learned_nothing_is_known_before_anything_is_built():
    fixed = {"_target_": "graft.heads.towers.encoder.Encoder"}
    learning = {"_target_": "graft.heads.towers.characters.Characters"}
    config = {"backbone": {"weights": "pretrained"}, "head": {"tower": fixed, "projection": "none"}}
    assert learned_names(config)
    assert not learned_names({**config, "head": {"tower": learning, "projection": "none"}})
    assert not learned_names({**config, "head": {"tower": fixed, "projection": "linear"}})
    assert learned_names({**config, "head": {"tower": learning, "projection": "linear", "weights": "runs/1"}})

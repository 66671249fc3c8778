from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from graft.backbones.outputs import Maps, MapSize, Tokens
from graft.build import build
from graft.heads.base import HeadContext, new_head, takes_local, takes_maps
from graft.inputs.columns import Column, Columns
from graft.registry import resolve

CONF = Path(__file__).parents[2] / "conf"

NAMES = {"torchvision": "shufflenet_v2_x0_5", "timm": "test_resnet"}


TABLES = [file for file in sorted((CONF / "backbone").glob("*.yaml")) if "columns: auto" in file.read_text()]


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.stem)
def test_every_backbone_config_for_tables_builds(file: Path) -> None:
    settings = OmegaConf.load(file)
    assert settings.pop("weights") is None
    assert settings.pop("columns") == "auto"
    columns = Columns([Column("age", "numeric"), Column("job", "categorical", ("cook", "smith"))])
    backbone = build(settings, columns=columns).eval()
    with torch.no_grad():
        assert backbone(backbone.example_inputs(2)).shape == (2, backbone.feature_size)


SEQUENCES = [file for file in sorted((CONF / "backbone").glob("*.yaml")) if "input_size: auto" in file.read_text()]


@pytest.mark.parametrize("file", SEQUENCES, ids=lambda file: file.stem)
def test_every_backbone_config_for_sequences_builds(file: Path) -> None:
    settings = OmegaConf.load(file)
    assert settings.pop("weights") is None
    assert settings.pop("input_size") == "auto"
    backbone = build(settings, input_size=3).eval()
    with torch.no_grad():
        assert backbone(backbone.example_inputs(2)).shape == (2, backbone.feature_size)


OF_IMAGES = [file for file in sorted((CONF / "backbone").glob("*.yaml")) if "channels:" in file.read_text("utf-8")]


LARGE = ("convnext", "resnet50", "vgg16", "vit")  # seconds to build


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, id=file.stem, marks=[pytest.mark.slow] * (file.stem in LARGE)) for file in OF_IMAGES],
)
def test_every_backbone_config_for_images_builds(file: Path) -> None:
    config = OmegaConf.create({"backbone": OmegaConf.load(file), "data": {"image_size": 32}})
    settings = config.backbone
    assert settings.pop("weights") in (None, "source")
    assert settings.pop("channels") == "auto"
    if file.stem in NAMES:
        assert OmegaConf.is_missing(settings, "name")
        settings.name = NAMES[file.stem]
    backbone = build(settings, channels=1).eval()
    assert backbone.input_spec.size == (32, 32)
    with torch.no_grad():
        assert backbone(torch.randn(2, 1, 32, 32)).shape == (2, backbone.feature_size)


@pytest.mark.parametrize("file", sorted((CONF / "head").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_head_config_builds(file: Path) -> None:
    settings = OmegaConf.load(file)
    for part in settings.pop("defaults", []):
        if "tower" in part:
            settings.tower = OmegaConf.load(CONF / "head" / "tower" / f"{part.tower}.yaml")
            settings.tower.size = 6
            if part.tower == "encoder":
                settings.tower.name = "a folder that is not opened"
    assert (settings.pop("sharing"), settings.pop("weights"), settings.pop("grow", False)) == ("auto", None, False)
    if getattr(resolve(settings["_target_"]), "needs_input_vocabulary", False):
        pytest.skip("a half of a network, see test_huggingface_seq2seq.py")
    maps = {f"layer{stride}": MapSize(6, stride) for stride in (8, 16, 32)}
    names = ("a", "b", "c")
    head = new_head(settings, HeadContext(feature_size=6, num_outputs=3, class_names=names, local_size=6, maps=maps))
    if takes_maps(head):
        sides = {name: 64 // one.stride for name, one in maps.items()}
        assert len(head(Maps({name: torch.randn(2, 6, side, side) for name, side in sides.items()}, (64, 64)))) == 2
        return
    if getattr(head, "writes", False):
        ids = torch.tensor([[1, 2], [2, 0]])
        assert head(Tokens.of_map(torch.randn(2, 6, 4, 4))).forced(ids).shape == (2, 2, 3)
        return
    seen = Tokens.of_map(torch.randn(2, 6, 4, 4)) if takes_local(head) else torch.randn(2, 6)
    assert head(seen).shape == (2, 3)


@pytest.mark.parametrize(
    "file", [*(CONF / "backbone").glob("*.yaml"), *(CONF / "head").glob("*.yaml")], ids=lambda file: file.stem
)
def test_first_line_is_a_description(file: Path) -> None:
    assert file.read_text(encoding="utf-8").startswith("# ")

"""A fusion of backbones: its formulas, what it drops, what trains, and where it is cut."""

import pytest
import torch
from torch import nn

from graft.backbones.cnn import cnn
from graft.backbones.contract import check_backbone
from graft.backbones.fusing import METHODS, Gated, modality_dropout
from graft.backbones.fusion import Fusion
from graft.backbones.split_backbone import active_modules, find_split
from graft.backbones.tabular import mlp
from graft.errors import GraftError
from graft.inputs.base import Fields, join
from graft.inputs.columns import Column, Columns
from graft.inputs.fusion import PRESENT
from graft.strategies.base import Strategy, frozen_modules
from graft.strategies.freeze_until import FreezeUntil
from graft.strategies.frozen import Frozen
from graft.strategies.full import Full

SIZES = {"image": 5, "table": 3}
COLUMNS = Columns([Column("age", "numeric"), Column("job", "categorical", ("cook", "smith"))])


def fusion(method: str = "gated", freeze: tuple[str, ...] = (), weights: bool = True, dropout: float = 0.0) -> Fusion:
    torch.manual_seed(0)
    parts = {"image": cnn(size=8, channels=1), "table": mlp(COLUMNS, width=6, blocks=1), "audio": None}
    named = {"image": "imagenet" if weights else None, "table": None}
    backbone = Fusion(parts, method=method, width=4, freeze=freeze, part_weights=named, modality_dropout=dropout)
    if weights:
        backbone.weights_loaded()  # as load_parts does
    return backbone


def fields(samples: int = 6) -> Fields:
    inputs = fusion().example_inputs(samples)
    present = torch.ones(samples, 2, dtype=torch.bool)
    present[1, 0] = present[2, 1] = False
    return Fields({**inputs.tensors, PRESENT: present})


def normalised(x, missing, there):
    x = x.double()
    mean, variance = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    return torch.where(there[:, None], (x - mean) / (variance + 1e-5).sqrt(), missing.double())


@pytest.mark.parametrize("method", METHODS)
def test_methods_are_their_formulas(method):
    torch.manual_seed(1)
    fusing = METHODS[method](SIZES, 4, 0.0)
    for parameter in fusing.parameters():
        nn.init.normal_(parameter)
    features = {name: torch.randn(6, size) for name, size in SIZES.items()}
    present = torch.rand(6, 2) > 0.3
    x = [normalised(features[n], fusing.missing[n], present[:, i]) for i, n in enumerate(SIZES)]
    weights = [(fusing.projections[n].weight.double(), fusing.projections[n].bias.double()) for n in SIZES]
    h = [torch.tanh(one @ w.T + b) for one, (w, b) in zip(x, weights, strict=True)]
    if method == "late":
        expected = torch.cat(h, 1)
    elif method == "average":
        expected = (h[0] + h[1]) / 2
    else:  # the paper's for two modalities: a sigmoid of what the two gates' rows differ by
        weight, bias = fusing.gates.linear.weight.double(), fusing.gates.linear.bias.double()
        z = torch.sigmoid(torch.cat(x, 1) @ (weight[:4] - weight[4:]).T + bias[:4] - bias[4:])
        expected = z * h[0] + (1 - z) * h[1]
    assert fusing.feature_size == expected.shape[1]
    torch.testing.assert_close(fusing(features, present).double(), expected, atol=1e-5, rtol=1e-5)


def test_modality_dropout_never_drops_all_and_only_what_is_there():
    torch.manual_seed(0)
    present = torch.ones(20_000, 3, dtype=torch.bool)
    present[:100] = torch.tensor([False, True, False])
    kept = modality_dropout(present, 0.5)
    assert kept.any(1).all()
    assert not (kept & ~present).any()
    assert (kept[:100] == present[:100]).all()
    # 0.5 by itself, and a third of the samples that would lose all
    assert kept[100:].double().mean() == pytest.approx(0.5 + 0.5**3 / 3, abs=0.01)
    fusing = Gated(SIZES, 4, 0.5)
    features, there = {name: torch.randn(6, size) for name, size in SIZES.items()}, torch.ones(6, 2, dtype=torch.bool)
    assert not torch.equal(fusing(features, there), fusing(features, there))
    assert torch.equal(fusing.eval()(features, there), fusing(features, there))


def test_missing_inputs_change_nothing_and_one_that_is_removed_counts_as_missing():
    backbone, inputs = fusion().eval(), fields()
    check_backbone(backbone)
    features = backbone(inputs)
    changed = inputs["image"].clone()
    changed[1] += 1
    assert torch.equal(backbone(Fields({**inputs.tensors, "image": changed})), features)
    with backbone.removed("image"):
        removed = backbone(inputs)
    none = inputs[PRESENT] & torch.tensor([False, True])
    assert torch.equal(removed, backbone(Fields({**inputs.tensors, PRESENT: none})))
    assert not torch.equal(removed[0], features[0])
    assert torch.equal(removed[1], features[1])
    assert len(join([inputs, inputs])) == 12


def trained_parts(backbone: Fusion, strategy: Strategy) -> set[str]:
    phase = strategy.phases(1, backbone)[-1]
    names = {name.split(".")[2] if ".parts." in name else "fusion" for name in phase.parameters}
    frozen = {id(module) for module in frozen_modules(backbone, phase)}
    for part, module in backbone.parts.items():
        stages = [one for one in module.modules() if not any(one.children())]
        assert all(id(one) in frozen for one in stages) == (part not in names)
    return names


def test_what_nothing_pretrained_trains_and_what_is_frozen_by_itself_does_not():
    assert trained_parts(fusion(), Frozen()) == {"table", "fusion"}
    assert trained_parts(fusion(), Full()) == {"image", "table", "fusion"}
    assert trained_parts(fusion(freeze=("image",)), Full()) == {"table", "fusion"}
    assert trained_parts(fusion(weights=False), Full()) == {"image", "table", "fusion"}
    names = [stage.name for stage in fusion().stages]
    assert names[-1] == "fusion"
    assert names.index("table.block1") == len(names) - 2  # the ends of the parts are beside each other
    phase = FreezeUntil(stages=len(names)).phases(1, fusion())[0]
    assert {*phase.stages} == {"table.columns", "table.block1", "fusion"}


@pytest.mark.parametrize("method", METHODS)
def test_a_fusion_is_cut_behind_its_frozen_parts(method):
    backbone, inputs = fusion(method), fields()
    phase = Frozen().phases(1, backbone)[0]
    split = find_split(backbone, active_modules(backbone, frozen_modules(backbone, phase), phase.parameters))
    assert split is not None
    backbone.eval()
    kept = split.trunk(inputs)
    assert kept.shape == (6, *split.shape)
    assert torch.equal(split.rest(kept), backbone(inputs))
    split.rest(kept).sum().backward()
    assert {name.split(".")[2] for name, one in backbone.named_parameters() if one.grad is not None} >= {"table"}
    assert all(parameter.grad is None for parameter in backbone.parts["image"].parameters())
    with backbone.removed("table"):
        assert torch.equal(split.rest(kept), backbone(inputs))
    assert "gates" not in repr(split.subject)  # what trains behind it does not change the key of what is kept
    everything = {name for name, _ in backbone.named_modules() if name}
    assert find_split(backbone, everything) is None


def test_wrong_parts_are_refused():
    with pytest.raises(GraftError, match=r"backbone.parts: a fusion needs one part"):
        Fusion({"text": None})
    with pytest.raises(GraftError, match=r"backbone.parts.text: cnn takes image inputs.*parts.text=<option>"):
        Fusion({"text": cnn(size=8, channels=1)})
    with pytest.raises(GraftError, match=r"backbone.parts.image: it is a Linear"):
        Fusion({"image": nn.Linear(2, 2)})
    with pytest.raises(GraftError, match=r"backbone.freeze=\[text\]: there is no such part. Parts: image"):
        Fusion({"image": cnn(size=8, channels=1)}, freeze=["text"])

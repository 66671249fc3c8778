"""An attribution as a picture: what speaks for a prediction in blue, what speaks against it in orange."""

import io

import numpy as np
from PIL import Image
from torch import Tensor

from graft.backbones.base import Backbone
from graft.inspection.subject import Subject
from graft.report.samples import SIDE, data_url

FOR, AGAINST = (30, 100, 220), (225, 110, 20)
STRONGEST = 0.8  # opacity of the largest value
DARKEST, LIGHTEST = 0.25, 0.9


def is_spectrogram(backbone: Backbone, subject: Subject) -> bool:
    """Whether a subject's values `(1, C, bands, frames)` are sound, whose low bands come first."""
    return subject.place.backbone(backbone).modality == "audio" and subject.values.ndim == 4


def overlay(subject: Subject, attribution: Tensor, *, upwards: bool = False) -> str | None:
    """What `overlay_png` draws as a data URL; None for inputs whose units have names."""
    return None if subject.names else data_url(overlay_png(subject, attribution, upwards=upwards), "image/png")


def overlay_png(subject: Subject, attribution: Tensor, *, upwards: bool = False) -> bytes:
    """A PNG of an image's or a spectrogram's values under its attribution.

    `upwards` draws the first row at the bottom, as the low bands of a spectrogram.
    """
    shape = subject.values.shape[-2:] if subject.values.ndim > 2 else (1, subject.values.shape[-1])
    base = grey(subject.values[0].numpy().reshape(-1, *shape).mean(axis=0))
    units = subject.units.reshape(-1, *shape)[0].numpy()
    density = attribution.numpy() / np.bincount(units.ravel(), minlength=subject.count)  # some cells are wider
    signed = (density / max(np.abs(density).max(), 1e-12))[units]
    return picture(base[::-1], signed[::-1]) if upwards else picture(base, signed)


def grey(values: np.ndarray) -> np.ndarray:
    """Values `(H, W)` as greys on which colours can be told apart; a few extreme ones are cut."""
    low, high = np.quantile(values, [0.01, 0.99])
    return DARKEST + (LIGHTEST - DARKEST) * np.clip((values - low) / max(high - low, 1e-12), 0, 1)


def picture(base: np.ndarray, signed: np.ndarray) -> bytes:
    """Grey values `(H, W)` in 0 to 1 with signed ones `(H, W)` in -1 to 1 in colour over them."""
    height, width = base.shape
    opacity = STRONGEST * np.abs(signed)[..., None]
    color = np.where(signed[..., None] > 0, np.array(FOR, dtype=float), np.array(AGAINST, dtype=float))
    mixed = (1 - opacity) * 255 * base[..., None] + opacity * color
    image = Image.fromarray(mixed.round().astype(np.uint8))
    factor = SIDE / max(height, width)
    size = (max(round(width * factor), 1), max(round(height * factor), SIDE // 4))  # a waveform is one pixel high
    content = io.BytesIO()
    image.resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX).save(content, "PNG")
    return content.getvalue()

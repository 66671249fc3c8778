"""scikit-learn's 1797 real handwritten digits, 8x8 pixels, which come with the package: no download."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from graft.data.domain import Domain
from graft.data.samples import Raw, Samples
from graft.inputs.sequence import Sequences, standardised

TEST, VAL = 500, 297  # samples; the other 1000 are the pool that a label budget draws from


class Digits(Domain):
    """Real digits 0-9; the test and validation splits depend on the split seed alone, never on a budget."""

    noun = "images"
    title = "digits"

    def __init__(self) -> None:
        super().__init__()
        self.sizes = {"test": TEST, "val": VAL}

    def read(self) -> Raw:
        """Images uint8 `(1797, 1, 8, 8)`, scaled from ink counts 0..16 to 0..255."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images).float().mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        samples = Samples(
            inputs=images,
            labels=[str(digit) for digit in digits.target],
            places=[f"digit {index}" for index in range(len(images))],
            contents=[image.numpy().tobytes() for image in images],
        )
        return Raw({"train": samples}, tuple("0123456789"))

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Grey images as they are."""
        return dict(splits), {"channels": 1}


class DigitRows(Digits):
    """The same digits as sequences: 8 rows of 8 pixels, from top to bottom."""

    modality = "sequence"
    title = "digit_rows"

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Rows of pixels, standardised by train."""

        def rows(samples: Samples) -> Samples:
            images = samples.inputs[:, 0].float()
            return replace(samples, inputs=Sequences(images, torch.full((len(images),), 8)))

        return standardised({name: rows(samples) for name, samples in splits.items()})

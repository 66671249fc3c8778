"""The view in a teacher's form shows the same part of every sample as the student's inputs."""

import pytest
import torch

from graft.data.loader import TransformedSamples
from graft.data.views import TEACHER, augment_of_view
from graft.inputs.image.transform import ImageSpec

HALF = (0.5, 0.5, 0.5)


class Images:
    """Smooth random pictures of 96 x 96 pixels, after a geometry."""

    def __init__(self, geometry):
        random = torch.rand(12, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        smooth = torch.nn.functional.interpolate(random, size=96, mode="bilinear")
        self.images = (255 * smooth).to(torch.uint8)
        self.geometry = geometry

    def __getitem__(self, indices):
        return self.geometry.batch(list(self.images[indices]))


def likeness(one, other):
    """Correlation of two batches of pictures of any size, over places."""
    small = [torch.nn.functional.adaptive_avg_pool2d(images, 8).flatten() for images in (one, other)]
    return torch.corrcoef(torch.stack(small))[0, 1].item()


@pytest.mark.parametrize("augment", ["light", "crop"])
@pytest.mark.parametrize("sizes", [(72, 96), (96, 72)])
def test_crops_and_mirroring_are_those_of_the_students_inputs(sizes, augment):
    own, teacher = (ImageSpec(3, (size, size), HALF, HALF).transform(augment) for size in sizes)
    views = {TEACHER: (Images(teacher.geometry), teacher), "weak": (Images(own.geometry), own)}
    samples = TransformedSamples(Images(own.geometry), None, own, views)
    batch = samples[(7, torch.arange(12))]
    assert batch.views[TEACHER].shape == (12, 3, sizes[1], sizes[1])
    assert likeness(batch.inputs, batch.views[TEACHER]) > 0.95
    assert likeness(batch.inputs, batch.views["weak"]) < 0.8


def test_there_is_one_of_every_modality_with_the_runs_own_augmentation():
    assert augment_of_view(TEACHER, "text", "none") == "none"
    assert augment_of_view(TEACHER, "image", "light") == "light"
    assert augment_of_view(TEACHER, "audio", "specaugment") == "specaugment"

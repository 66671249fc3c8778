import pickle

import pytest
import torch

from graft.cache.images import PIXELS, MappedImages, write_images


@pytest.fixture
def images():
    return [torch.randint(0, 256, (3, side, side + 3), dtype=torch.uint8) for side in (5, 2, 9, 4)]


def test_images_of_different_sizes_come_back_in_any_order(tmp_path, images):
    write_images(tmp_path, iter(images))
    stored = MappedImages(tmp_path)
    assert len(stored) == 4
    for read in (stored, pickle.loads(pickle.dumps(stored))):
        drawn = read[torch.tensor([2, 0, 0])]
        assert all(torch.equal(image, images[i]) for image, i in zip(drawn, (2, 0, 0), strict=True))


def test_a_file_cut_short_is_refused(tmp_path, images):
    write_images(tmp_path, images)
    with (tmp_path / PIXELS).open("r+b") as file:
        file.truncate(20)
    with pytest.raises(ValueError, match=r"images\.bin"):
        MappedImages(tmp_path)

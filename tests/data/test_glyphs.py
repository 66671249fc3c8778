import torch

from graft.data.sources.glyphs import Glyphs, font_files


def test_splits_are_rendered_at_first_use_and_differ():
    data = Glyphs(samples=40, seed=3).load(0)
    assert [len(split) for split in (data.train, data.val, data.test)] == [40, 10, 10]
    assert data.train.inputs._tensor is None
    images = data.train.inputs.tensor
    assert images.shape == (40, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert data.train.labels.bincount().tolist() == [4] * 10
    assert not torch.equal(images[:10], data.val.inputs.tensor)


def test_the_seed_decides_the_pixels_and_the_split_seed_does_not():
    one, same, other = (Glyphs(20, seed=seed).load(split) for seed, split in ((0, 0), (0, 1), (1, 0)))
    assert torch.equal(one.train.inputs.tensor, same.train.inputs.tensor)
    assert not torch.equal(one.train.inputs.tensor, other.train.inputs.tensor)
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_every_image_is_a_digit_that_fills_the_height():
    images = Glyphs(200, block=1).load(0).train.inputs.tensor
    assert images.shape == (200, 1, 32, 32)
    ink = images[:, 0].float() / 255
    assert ((ink.mean((1, 2)) > 0.05) & (ink.mean((1, 2)) < 0.75)).all()
    assert (ink[:, :2].amax((1, 2)) > 0).all(), "ink at the top"
    assert (ink[:, -2:].amax((1, 2)) > 0).all(), "and at the bottom"


def test_blocks_count_the_bitmap():
    bitmap = Glyphs(20, block=1).load(0).train.inputs.tensor.float()
    counted = Glyphs(20, block=4).load(0).train.inputs.tensor.float()
    assert torch.equal(torch.nn.functional.avg_pool2d(bitmap, 4).round(), counted)


def test_fingerprint_follows_every_setting():
    settings = [{}, {"samples": 100}, {"size": 16}, {"block": 2}, {"seed": 1}]
    assert len({Glyphs(**setting).load(0).fingerprint for setting in settings}) == len(settings)


def test_fonts_are_there():
    assert len(font_files()) == 20

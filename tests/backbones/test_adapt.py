import pytest
import torch
import torch.nn.functional as F

from graft.weights.input_conv import adapt_input_conv, spread_over_channels


def test_grey_image_repeated_equals_the_folded_layer() -> None:
    weight, grey = torch.randn(4, 3, 3, 3, dtype=torch.float64), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    expected = F.conv2d(grey.repeat(1, 3, 1, 1), weight, padding=1)
    torch.testing.assert_close(F.conv2d(grey, adapt_input_conv(weight, 1), padding=1), expected)


def test_layer_for_grey_repeated_over_rgb() -> None:
    weight, grey = torch.randn(4, 1, 3, 3, dtype=torch.float64), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    expected = F.conv2d(grey, weight)
    torch.testing.assert_close(F.conv2d(grey.repeat(1, 3, 1, 1), adapt_input_conv(weight, 3)), expected)


@pytest.mark.parametrize("channels", [2, 4, 5, 6])
def test_equal_channels_keep_their_sum(channels: int) -> None:
    weight = torch.randn(4, 1, 3, 3).repeat(1, 3, 1, 1)
    folded = adapt_input_conv(weight, channels)
    assert folded.shape == (4, channels, 3, 3)
    torch.testing.assert_close(folded.sum(1), weight.sum(1))


def test_same_channels_are_untouched() -> None:
    weight = torch.randn(4, 3, 3, 3)
    assert adapt_input_conv(weight, 3) is weight


def test_normalisation_of_other_channels_is_the_average() -> None:
    assert spread_over_channels((0.2, 0.4, 0.6), 1).tolist() == pytest.approx([0.4])
    assert spread_over_channels((0.2, 0.4, 0.6), 3).tolist() == pytest.approx([0.2, 0.4, 0.6])
    assert spread_over_channels((0.5,), 4).tolist() == [0.5] * 4

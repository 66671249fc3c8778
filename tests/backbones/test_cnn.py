import pytest

from graft.backbones.cnn import cnn
from graft.errors import GraftError

from .checks import check_features, check_freezing, check_stages


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (8, 3)])
def test_features_and_stages(size: int, channels: int) -> None:
    backbone = cnn(size=size, channels=channels)
    check_stages(backbone)
    check_features(backbone)
    check_freezing(backbone)
    assert backbone.feature_size == 128


def test_too_small_an_image() -> None:
    with pytest.raises(GraftError, match="4 pixels"):
        cnn(size=3)

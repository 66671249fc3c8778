"""What the run reads of `head` and gives to every head."""

from typing import Literal, TypedDict

from graft.config.types import Given


class HeadSettings(TypedDict):
    """What the run reads of `head`, and gives to its constructor, beside the constructor's own arguments."""

    sharing: Literal["auto", "shared", "separate"]
    feature_size: Given
    num_outputs: Given

"""Hydra's instantiate, with a user's mistake as itself."""

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from graft.errors import GraftError


def build(settings: Any, **keywords: Any) -> Any:
    """The object that `_target_` names; a GraftError of its constructor comes out of Hydra's wrapping."""
    try:
        return instantiate(settings, **keywords)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, GraftError):
            cause = cause.__cause__
        raise cause or error from None

"""What terms refuse to work without; each refusal says what to type."""

from graft.errors import GraftError
from graft.terms.base import Setup


def require_pretrained(setup: Setup, term: str) -> None:
    """Refuse a backbone that starts from random weights."""
    if not setup.pretrained:
        raise GraftError(
            f"term.{term} needs pretrained weights, but the backbone starts from random ones. Set backbone.weights="
            "imagenet, source, pip:<package> or a file, and a strategy other than scratch; or leave the term out."
        )


def require_at_least(key: str, value: float, least: float) -> None:
    """Refuse a value that is too small."""
    if value < least:
        raise GraftError(f"term.{key}={value} is out of range: it must be at least {least}.")

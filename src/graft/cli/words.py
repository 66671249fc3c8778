"""Values that the verbs take on their command lines."""


def names_in(value: str) -> list[str]:
    """The names of `[one,two]`."""
    return [name.strip().strip("'\"") for name in value.strip("[]").split(",") if name.strip()]

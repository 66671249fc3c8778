"""Config keys that have a new name; whoever still writes the old one is told the new one."""

RENAMED = {
    "backbone.bands": "backbone.n_mels",
    "backbone.hop_ms": "backbone.hop_length_ms",
    "backbone.seconds": "backbone.clip_seconds",
    "backbone.window_ms": "backbone.win_length_ms",
}


def new_name(key: str) -> str:
    """The message that names the new key; empty where the key never had another name."""
    return f"`{key}` is now `{RENAMED[key]}`" if key in RENAMED else ""

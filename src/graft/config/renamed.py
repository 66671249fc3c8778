"""Keys and experiments that have a new name; whoever still writes the old one gets the new one as an answer."""

RENAMED = {
    "backbone.bands": "backbone.n_mels",
    "backbone.hop_ms": "backbone.hop_length_ms",
    "backbone.seconds": "backbone.clip_seconds",
    "backbone.window_ms": "backbone.win_length_ms",
    "data.target_labeled": "data.target_setting",
}

EXPERIMENTS = {
    "resnet_adapter": "experiment=resnet_ft strategy=adapter",
    "resnet_bit_hyperrule": "experiment=resnet_ft strategy=bit_hyperrule data.batch_size=32",
    "resnet_bitfit": "experiment=resnet_ft strategy=bitfit optimizer.lr=5e-3",
    "resnet_discriminative": "experiment=resnet_ft strategy=discriminative",
    "resnet_fine_tune": "experiment=resnet_ft strategy=fine_tune optimizer.lr=5e-3",
    "resnet_freeze_until": "experiment=resnet_ft strategy=freeze_until",
    "resnet_frozen": "experiment=resnet_ft strategy=frozen optimizer.lr=5e-3",
    "resnet_gradual": "experiment=resnet_ft strategy=gradual rates=discriminative",
    "resnet_ia3": "experiment=resnet_ft strategy=ia3 optimizer.lr=2e-2",
    "resnet_layer_decay": "experiment=resnet_ft strategy=layer_decay",
    "resnet_lora": "experiment=resnet_ft strategy=lora",
    "resnet_lp_ft": "experiment=resnet_ft strategy=lp_ft optimizer.lr=5e-3",
    "resnet_norm_only": "experiment=resnet_ft strategy=norm_only optimizer.lr=5e-3",
    "resnet_scratch": "experiment=resnet_ft strategy=scratch",
    "resnet_surgical": "experiment=resnet_ft strategy=surgical",
}


def new_name(key: str) -> str:
    """The message that names the new key; empty where the key never had another name."""
    return f"`{key}` is now `{RENAMED[key]}`" if key in RENAMED else ""

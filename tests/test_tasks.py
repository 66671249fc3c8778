import math

import pytest
import torch
from sklearn import metrics as reference

from graft.errors import GraftError
from graft.tasks.binary import Binary
from graft.tasks.multiclass import Multiclass
from graft.tasks.multilabel import Multilabel
from graft.tasks.regression import Regression


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def compute(task, logits, labels, size):
    metrics = task.metrics(size), task.test_metrics(size)
    for collection in metrics:
        if collection:
            collection.update(task.predictions(logits), task.targets(labels))
    values = {name: value for collection in metrics if collection for name, value in collection.compute().items()}
    confusion = values.pop("confusion", None)
    return {name: value.item() for name, value in values.items()}, confusion


def test_multiclass_against_sklearn(generator):
    logits, labels = torch.randn(60, 3, generator=generator), torch.randint(0, 3, (60,), generator=generator)
    values, confusion = compute(Multiclass(), logits, labels, 3)
    predicted, probabilities = logits.argmax(1), logits.softmax(1)
    assert values["acc"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert values["f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    assert values["auroc"] == pytest.approx(reference.roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert confusion.tolist() == reference.confusion_matrix(labels, predicted).tolist()


def test_multiclass_loss_with_smoothing_and_weights(generator):
    logits, labels = torch.randn(8, 3, generator=generator).double(), torch.randint(0, 3, (8,), generator=generator)
    log_p = logits.log_softmax(1)
    smoothed = -(0.9 * log_p[range(8), labels] + 0.1 * log_p.mean(1)).mean()
    assert Multiclass(label_smoothing=0.1).loss(logits, labels).item() == pytest.approx(smoothed.item())
    weights = torch.tensor([1.0, 2.0, 5.0]).double()
    weighted = -(weights[labels] * log_p[range(8), labels]).sum() / weights[labels].sum()
    assert Multiclass().loss(logits, labels, weights).item() == pytest.approx(weighted.item())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_multiclass_loss_of_soft_labels_with_smoothing_and_weights(generator, smoothing, weighted):
    logits = torch.randn(8, 3, generator=generator).double()
    soft = torch.rand(8, 3, generator=generator).double()
    soft /= soft.sum(1, keepdim=True)
    weights = torch.tensor([1.0, 2.0, 5.0]).double() if weighted else None
    w = torch.ones(3).double() if weights is None else weights
    log_p = logits.log_softmax(1)
    total = sum(
        -w[k] * ((1 - smoothing) * soft[i, k] + smoothing / 3) * log_p[i, k] for i in range(8) for k in range(3)
    )
    expected = total / sum(w[k] * soft[i, k] for i in range(8) for k in range(3))
    task = Multiclass(smoothing)
    assert task.loss(logits, soft, weights).item() == pytest.approx(expected.item(), rel=1e-12)

    labels = torch.randint(0, 3, (8,), generator=generator)  # a class is a soft label with all its weight on one
    one_hot = torch.eye(3).double()[labels]
    assert task.loss(logits, one_hot, weights).item() == pytest.approx(task.loss(logits, labels, weights).item())


def test_multilabel_loss_of_soft_labels(generator):
    logits, soft = (torch.randn(4, 3, generator=generator).double(), torch.rand(4, 3, generator=generator).double())
    p = logits.sigmoid()
    expected = -(soft * p.log() + (1 - soft) * (1 - p).log()).mean()
    assert Multilabel().loss(logits, soft).item() == pytest.approx(expected.item())


def test_metrics_take_the_label_that_weighs_most():
    assert Multiclass().targets(torch.tensor([[0.3, 0.7, 0.0], [0.6, 0.0, 0.4]])).tolist() == [1, 0]
    assert Multiclass().targets(torch.tensor([2, 0])).tolist() == [2, 0]
    assert Multilabel().targets(torch.tensor([[1.0, 0.7, 0.3], [0.0, 0.5, 1.0]])).tolist() == [[1, 1, 0], [0, 0, 1]]
    assert Multilabel().targets(torch.tensor([[True, False]])).tolist() == [[1, 0]]


def test_binary_against_sklearn(generator):
    logits, labels = torch.randn(50, 1, generator=generator), torch.randint(0, 2, (50,), generator=generator).float()
    values, confusion = compute(Binary(), logits, labels, 1)
    predicted = (logits[:, 0] > 0).long()
    assert values["acc"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert values["f1"] == pytest.approx(reference.f1_score(labels, predicted))
    assert values["sensitivity"] == pytest.approx(reference.recall_score(labels, predicted))
    assert values["specificity"] == pytest.approx(reference.recall_score(labels, predicted, pos_label=0))
    assert values["auroc"] == pytest.approx(reference.roc_auc_score(labels, logits[:, 0]))
    by_auroc, _ = compute(Binary("auroc"), logits, labels, 1)
    assert by_auroc == pytest.approx(values)
    assert confusion.tolist() == reference.confusion_matrix(labels, predicted).tolist()
    expected = reference.log_loss(labels, logits[:, 0].sigmoid().double())
    assert Binary().loss(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_multilabel_against_sklearn(generator):
    logits = torch.randn(40, 3, generator=generator)
    labels = torch.randint(0, 2, (40, 3), generator=generator).float()
    values, _ = compute(Multilabel(), logits, labels, 3)
    predicted = (logits > 0).long()
    assert values["acc"] == pytest.approx((predicted == labels).float().mean().item())
    assert values["f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    assert values["auroc"] == pytest.approx(reference.roc_auc_score(labels, logits, average="macro"))


@pytest.mark.parametrize(("loss", "function"), [("mse", "mean_squared_error"), ("l1", "mean_absolute_error")])
def test_regression_against_sklearn(generator, loss, function):
    logits, labels = torch.randn(30, 1, generator=generator), torch.randn(30, generator=generator)
    task = Regression(loss)
    values, _ = compute(task, logits, labels, 1)
    assert values["mae"] == pytest.approx(reference.mean_absolute_error(labels, logits[:, 0]), rel=1e-5)
    assert values["rmse"] == pytest.approx(reference.root_mean_squared_error(labels, logits[:, 0]), rel=1e-5)
    assert values["r2"] == pytest.approx(reference.r2_score(labels, logits[:, 0]), rel=1e-4)
    assert task.loss(logits, labels).item() == pytest.approx(getattr(reference, function)(labels, logits[:, 0]))


def test_a_class_that_a_split_lacks_has_no_part_in_means():
    labels = torch.tensor([0, 0, 1, 1])
    outputs = torch.tensor([[3.0, 1.0, 0.0], [4.0, 0.0, 1.0], [0.0, 4.0, 1.0], [1.0, 3.0, 0.0]])
    values, _ = compute(Multiclass(), outputs, labels, 3)  # a perfect network, and no sample of the third class
    assert (values["acc"], values["f1"], values["auroc"]) == (1, 1, 1)
    values, _ = compute(Multiclass(), outputs[:, [1, 0, 2]], labels, 3)
    areas = [reference.roc_auc_score(labels == c, outputs[:, [1, 0, 2]].softmax(1)[:, c]) for c in (0, 1)]
    assert values["auroc"] == pytest.approx(sum(areas) / 2)
    values, _ = compute(Multiclass(), outputs, torch.zeros(4, dtype=torch.int64), 3)
    assert math.isnan(values["auroc"])


def test_a_label_that_a_split_lacks_has_no_part_in_means():
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])
    values, _ = compute(Multilabel(), labels * 8 - 4, labels, 3)
    assert (values["acc"], values["f1"], values["auroc"]) == (1, 1, 1)
    values, _ = compute(Multilabel(), labels * 8 - 4, torch.zeros(3, 3), 3)
    assert math.isnan(values["auroc"])
    assert values["f1"] == 0  # two labels are predicted where there is none


@pytest.mark.parametrize(("label", "lacking"), [(0.0, "sensitivity"), (1.0, "specificity")])
def test_yes_or_no_of_one_class_has_no_auroc(label, lacking):
    values, _ = compute(Binary(), torch.tensor([[-1.0], [2.0]]), torch.full((2,), label), 1)
    assert math.isnan(values["auroc"])
    assert math.isnan(values.pop(lacking))
    assert values["acc"] == values["sensitivity" if label else "specificity"] == 0.5


def test_auroc_tells_apart_what_probabilities_round_to_one(generator):
    labels = torch.arange(200) % 2
    logits = 40 + 10 * labels + 10 * torch.randn(200, generator=generator)
    expected = reference.roc_auc_score(labels, logits)
    assert reference.roc_auc_score(labels, logits.sigmoid()) < expected - 0.05, "else this shows nothing"
    for task, outputs in ((Binary("auroc"), logits[:, None]), (Multilabel(), torch.stack([logits, -logits], 1))):
        targets = labels if outputs.shape[1] == 1 else torch.stack([labels, 1 - labels], 1)
        assert all_metrics(task, outputs, targets)["auroc"] == pytest.approx(expected)
    outputs = torch.stack([torch.zeros(200), logits, torch.full((200,), -50.0)], 1)
    odds = torch.stack([outputs[:, [1, 2]].logsumexp(1), outputs[:, [0, 2]].logsumexp(1)], 1)
    areas = [reference.roc_auc_score(labels == k, (outputs[:, k] - odds[:, k]).double()) for k in (0, 1)]
    assert all_metrics(Multiclass(), outputs, labels)["auroc"] == pytest.approx(sum(areas) / 2)


def all_metrics(task, logits, labels):
    """Of validation and test, updated as the module does."""
    metrics = {}
    for collection in (task.metrics(logits.shape[1]), task.test_metrics(logits.shape[1])):
        collection.update(task.predictions(logits), task.targets(labels), scores=task.scores(logits))
        metrics |= collection.compute()
    return metrics


@pytest.mark.parametrize("mean", [0.0, 1e5, -1e6])
@pytest.mark.parametrize("spread", [50.0, 1e4])
def test_r2_does_not_depend_on_the_mean_of_the_labels(generator, mean, spread):
    labels = (torch.randn(500, generator=generator) * spread).round() + mean
    predictions = labels + (torch.randn(500, generator=generator) * spread / 2).round()
    task = Regression()
    collection = task.metrics(1)
    for batch in torch.arange(500).split(7):
        collection.update(predictions[batch], labels[batch])
    assert collection.compute()["r2"].item() == pytest.approx(
        reference.r2_score(labels.double(), predictions.double()), abs=1e-6
    )


def test_r2_of_equal_labels_is_undefined():
    values, _ = compute(Regression(), torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 3.0]), 1)
    assert math.isnan(values["r2"])


@pytest.mark.parametrize(
    ("task", "classes", "message"),
    [
        (Multiclass(), ("only",), "at least 2 classes"),
        (Multiclass(), None, "task=regression"),
        (Binary(), ("a", "b", "c"), "task=multiclass"),
        (Regression(), ("a", "b"), "needs numbers"),
    ],
)
def test_data_that_does_not_fit_the_task_is_refused(task, classes, message):
    with pytest.raises(GraftError, match=message):
        task.num_outputs(classes)


def test_an_unknown_regression_loss_is_refused():
    with pytest.raises(GraftError, match=r"task\.loss='huber'.*mse, l1"):
        Regression("huber")


def test_the_main_metric_of_yes_or_no_is_one_that_validation_has():
    assert Binary().main_metric == "acc"
    assert "auroc" not in Binary().metrics(1)
    assert Binary("auroc").main_metric in Binary("auroc").metrics(1)
    with pytest.raises(GraftError, match=r"task\.main_metric='f2'.*acc, auroc"):
        Binary("f2")


def test_regression_standardises_by_the_training_labels():
    task = Regression()
    task.fit(torch.tensor([100.0, 200.0]))
    assert task.predictions(torch.tensor([[-1.0], [0.0]])).tolist() == [100, 150]
    assert task.loss(torch.tensor([[1.0]]), torch.tensor([200.0])) == 0
    task.fit(torch.tensor([3.0, 3.0]))
    assert task.predictions(torch.tensor([[1.0]])).tolist() == [4]

import pytest
import torch
import torch.nn.functional as F

from graft.tasks.metrics import HELD, Mean, TrainingMetrics
from graft.tasks.multiclass import Multiclass
from graft.tasks.multilabel import Multilabel
from graft.tasks.regression import Regression


@pytest.mark.parametrize("batches", [1, HELD, HELD + 3])
@pytest.mark.parametrize("task", [Multiclass(), Multilabel(), Regression()], ids=lambda task: task.name)
def test_training_metrics_are_those_of_all_batches_whatever_their_sizes(task, batches):
    torch.manual_seed(0)
    num_outputs = 1 if task.name == "regression" else 4
    metrics, losses, seen = TrainingMetrics(task, num_outputs), [], []
    for number in range(batches):
        size = 3 + number % 2
        labels = {
            "multiclass": torch.randint(4, (size,)),
            "multilabel": torch.randint(2, (size, 4)).float(),
            "regression": torch.randn(size),
        }[task.name]
        logits = torch.randn(size, num_outputs, requires_grad=True)
        loss = task.loss(logits, labels)
        metrics.add(loss, logits, labels)
        losses.append(loss.item() * size)
        seen.append((logits.detach(), labels))
    logits, labels = (torch.cat(column) for column in zip(*seen, strict=True))
    score = task.metrics(num_outputs)[task.main_metric]
    score.update(task.predictions(logits), task.targets(labels))
    values = metrics.compute()
    assert values["loss"].item() == pytest.approx(sum(losses) / len(labels), rel=1e-6)
    assert values[task.main_metric].item() == pytest.approx(score.compute().item(), rel=1e-6)
    assert not any(value.requires_grad for value in values.values())
    metrics.reset()
    assert metrics.compute() == {}


def test_soft_labels_count_as_the_class_that_weighs_most():
    metrics = TrainingMetrics(Multiclass(), 3)
    soft = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.0, 0.9]])
    logits = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    metrics.add(F.cross_entropy(logits, soft), logits, soft)
    assert metrics.compute()["acc"] == 0.5


def test_a_loss_that_is_not_a_number_makes_the_mean_none():
    mean = Mean()
    mean.update(torch.tensor(1.0), 1)
    mean.update(torch.tensor(float("nan")), 1)
    assert mean.compute().isnan()

"""What a teacher's outputs teach: soft targets (Hinton, Vinyals and Dean, 2015, arXiv:1503.02531)."""

import functools
from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from graft.tasks.base import Task
from graft.tasks.regression import Regression
from graft.terms.regularization.lwf import distillation


def softmax_targets(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(softmax(taught / T) || softmax(logits / T))`, mean over samples; both `(B, K)`.

    With the factor T^2 gradients stay as large as those of the labels' loss at every temperature.
    """
    return temperature**2 * distillation(logits, taught, temperature)


def sigmoid_targets(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """The same of each output by itself, yes or no; mean over samples and outputs, both `(B, K)`."""
    own, theirs = logits / temperature, taught / temperature
    yes, no = F.logsigmoid(theirs) - F.logsigmoid(own), F.logsigmoid(-theirs) - F.logsigmoid(-own)
    return temperature**2 * (theirs.sigmoid() * yes + (-theirs).sigmoid() * no).mean()


def number_targets(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Mean squared difference of numbers `(B, 1)` in the student's unit; they have no temperature."""
    return F.mse_loss(logits, taught)


LOSSES: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {  # by name of the task
    "multiclass": softmax_targets,
    "binary": sigmoid_targets,
    "multilabel": sigmoid_targets,
    "regression": number_targets,
}


def in_words_of(
    task: Task, classes: Sequence[str] | None, teacher_task: Task, teacher_classes: Sequence[str] | None
) -> Callable[[Tensor], Tensor]:
    """From a teacher's logits `(B, K_teacher)` to those of the student's outputs `(B, K)`.

    Classes are matched by name; a teacher may know more. Numbers come in the unit in which the student has them.
    """
    if isinstance(task, Regression) and isinstance(teacher_task, Regression):
        return functools.partial(in_unit_of, task, teacher_task)
    assert classes is not None
    assert teacher_classes is not None
    if task.name == "binary":  # one output, the log-odds of the second class
        return functools.partial(columns_of, columns=[0], sign=1 if [*classes] == [*teacher_classes] else -1)
    return functools.partial(columns_of, columns=[list(teacher_classes).index(name) for name in classes])


def in_unit_of(task: Regression, teacher_task: Regression, logits: Tensor) -> Tensor:
    """A teacher's standardised numbers `(B, 1)` as the student has them."""
    return ((teacher_task.predictions(logits) - task.mean) / task.std).unsqueeze(-1)


def columns_of(logits: Tensor, columns: Sequence[int], sign: int = 1) -> Tensor:
    """Some of a teacher's outputs `(B, K)`, in another order."""
    return sign * logits[:, columns]

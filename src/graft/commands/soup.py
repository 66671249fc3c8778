"""Average the weights of a finished sweep's jobs and test the result (Wortsman et al., ICML 2022)."""

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from graft.errors import GraftError
from graft.experiment import Experiment, assemble
from graft.run import pretrained, recorded, test_and_describe
from graft.runs import checkpoints, describe, ingredients
from graft.runs.context import run_context
from graft.runs.folder import BEST, CHECKPOINTS, MERGED, SOUP, SWAD, WISE_FT, RunFolder, in_own_folder
from graft.training.evaluation import validation_metrics
from graft.weights import soup as soups
from graft.weights.averaging import network

WEIGHT_PREFIXES = ("backbone.", "heads.")


@in_own_folder
def soup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Test the better soup of the sweep that `config["soup"]` names and return the results, as a run's."""
    started, context = time.perf_counter(), run_context()
    experiment = assemble(ingredients.settings(config), share_data=context.sweep is not None)
    if experiment.module.compression.changes_weights:
        raise GraftError(
            f"soup={config['soup']}: its jobs were compressed, and a mean of their weights is not. Make the soup of a "
            "sweep with compress=none."
        )
    pretrained(experiment, context)
    results = describe.of_setup(experiment, context, {})
    with recorded(experiment, results, context, started) as fitting:
        experiment.module.strategy.merge(experiment.module.backbone)
        selected, results["soup"] = make(experiment)
        checkpoints.save_network(experiment, SOUP)
        test_and_describe(experiment, results, selected, fitting, in_sweep=context.sweep is not None)
    return results


def make(experiment: Experiment) -> tuple[dict[str, Any], dict[str, Any]]:
    """Leave the better soup of a sweep's jobs in the module; what was selected, and what it was selected among."""
    module, rule, sweep = experiment.module, experiment.rule, experiment.config["soup"]
    jobs, tested = ingredients.read(Path(sweep), experiment.config["allow"]), network(module)

    def evaluate(weights: Mapping[str, Tensor]) -> dict[str, float]:
        tested.load_state_dict(weights)
        return validation_metrics(experiment)

    loads = {one.name: functools.partial(tested_weights, one, tested.state_dict()) for one in jobs}
    monitor = rule.monitor(module.tasks)
    assert monitor is not None
    made = soups.make_soup(loads, evaluate, monitor, rule.higher_is_better(module.tasks))
    tested.load_state_dict(made.weights)
    report = {
        "folder": sweep,
        "monitor": monitor,
        "chosen": made.kind,
        "uniform": made.uniform,
        "greedy": made.greedy,
        "members": made.members,
        "ingredients": made.ingredients,
        "label_subsets": ingredients.label_subsets(jobs),
    }
    return {"epoch": None, "metrics": made.metrics, "rule": rule.name}, report


def tested_weights(ingredient: ingredients.Ingredient, network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Backbone and heads that a finished run tested; GraftError where they are gone or do not fit the network."""
    folder = ingredient.folder / CHECKPOINTS
    last_made = (WISE_FT,) if ingredient.config["training"]["wise_ft_alphas"] else (MERGED, SWAD, SOUP)
    file = next((folder / name for name in last_made if (folder / name).is_file()), folder / BEST)
    if not file.is_file():
        raise GraftError(f"soup: {ingredient.name} has no {file}. Run the job again, or delete its folder.")
    content = checkpoints.load(file)
    if file.name == BEST:
        checkpoints.of_run(content, file, RunFolder(ingredient.folder).checkpoint_ids)
    parts = {f"{part}.{name}": v for part in ("backbone", "heads") for name, v in content.get(part, {}).items()}
    weights = {
        name: value for name, value in content.get("state_dict", parts).items() if name.startswith(WEIGHT_PREFIXES)
    }
    shape = checkpoints.shape
    if different := [name for name in {**weights, **network} if shape(weights, name) != shape(network, name)]:
        raise GraftError(
            f"soup: {ingredient.name} has another network than the first job; {len(different)} tensors differ, "
            f"{different[0]} first. Delete its folder to leave it out."
        )
    return weights

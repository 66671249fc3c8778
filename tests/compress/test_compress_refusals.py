"""What a compression cannot go together with is said before anything loads."""

import pytest
from lanes import one_in
from test_config import problems

PRUNED_LATER = ["compress=prune", "compress.start_epoch=2"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    one_in(
        5,
        [
            (["compress=prune", "strategy=lora"], "`compress=prune` with `strategy=lora`: it takes no layers"),
            (["compress=quantize", "strategy=adapter"], "`compress=quantize` with `strategy=adapter`"),
            (
                ["compress=magnitude", "strategy=frozen"],
                "`compress=magnitude` with `strategy=frozen`: it prunes weights that",
            ),
            (
                ["compress=magnitude", "training.wise_ft_alphas=[0,1]"],
                "`compress=magnitude` with `training.wise_ft_alphas`",
            ),
            (["compress=prune", "compress.start_epoch=30"], "`compress.start_epoch=30` with `training.epochs=30`"),
            (["compress=prune", "compress.start_epoch=20", "compress.steps=11"], "`compress.start_epoch=20` with"),
            (["compress=magnitude", "compress.start=0.8"], "`compress.start=0.8` with `compress.end=0.75`"),
            (["compress=prune", "bn=domain_specific"], "`compress=prune` with `bn=domain_specific`"),
            (["compress=prune", "training.gradient_checkpointing=true"], "`compress=prune` with `training.gradient_ch"),
            ([*PRUNED_LATER, "averaging=ema"], "compress.steps=1` with `averaging=ema`: an average has one shape"),
            ([*PRUNED_LATER, "training.compile=true"], "compress.steps=1` with `training.compile=true`"),
            ([*PRUNED_LATER, "trainer=ddp_cpu"], "compress.steps=1` with several processes"),
            ([*PRUNED_LATER, "term=[l2sp]"], "compress.steps=1` with `term=l2sp`"),
            (["compress=quantize", "training.compile=true"], "`compress=quantize` with `training.compile=true`"),
            (["compress=quantize", "averaging=swad", "selection=last"], "`compress=quantize` with `averaging=swad`"),
            (["compress=prune", "compress.ratio=1"], "`compress.ratio=1`: must be a number"),
            (["compress=prune", "compress.importance=hessian"], "`compress.importance=hessian`: must be"),
            (["training.weight_clip=0"], "`training.weight_clip=0`: must be"),
            (
                [
                    "compress=prune",
                    "compress.importance=taylor",
                    "data.target_setting=unsupervised",
                    "objective.alpha=1",
                ],
                "`compress.importance=taylor` with `data.target_setting=unsupervised`",
            ),
        ],
    ),
)
def test_it_is_refused_by_name(overrides, said):
    found = problems("backbone.weights=source", *overrides)
    assert len(found) == 1, found
    assert said in found[0]


@pytest.mark.parametrize(
    "overrides",
    one_in(
        5,
        [
            ["compress=prune", "averaging=ema", "training.compile=true", "term=[l2sp]", "strategy=frozen"],
            [*PRUNED_LATER, "averaging=greedy_soup"],
            ["compress=magnitude", "averaging=ema", "strategy=gradual"],
            ["compress=quantize", "averaging=ema", "term=[l2sp]", "strategy=lp_ft"],
            ["training.weight_clip=0.5", "strategy=lora"],
        ],
    ),
)
def test_what_goes_together_passes(overrides):
    assert problems("backbone.weights=source", *overrides) == []

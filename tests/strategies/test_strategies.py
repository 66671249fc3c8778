import pytest

from graft.errors import GraftError
from graft.rates.backbone_ratio import BackboneRatio
from graft.rates.uniform import Uniform
from graft.strategies.base import Phase
from graft.strategies.frozen import Frozen
from graft.strategies.full import Full
from graft.strategies.lp_ft import LinearProbeThenFineTune
from graft.strategies.scratch import Scratch

STAGES = ("stem", "layer1", "layer2")


def test_full_and_scratch_train_everything_but_only_full_starts_from_pretrained_weights():
    assert Full().phases(5, STAGES) == Scratch().phases(5, STAGES) == [Phase(5, STAGES)]
    assert (Full.pretrained, Scratch.pretrained) == (True, False)


def test_frozen_trains_no_stage():
    assert Frozen().phases(5, STAGES) == [Phase(5, ())]


@pytest.mark.parametrize(("epochs", "fraction", "expected"), [(10, 0.5, (5, 5)), (2, 0.9, (1, 1)), (7, 0.1, (1, 6))])
def test_lp_ft_probes_first_and_both_phases_have_an_epoch(epochs, fraction, expected):
    phases = LinearProbeThenFineTune(fraction, lr_ratio=0.2).phases(epochs, STAGES)
    assert [p.epochs for p in phases] == list(expected)
    assert [p.stages for p in phases] == [(), STAGES]
    assert [p.lr_factor for p in phases] == [1.0, 0.2]


def test_lp_ft_refuses_what_leaves_no_room_for_two_phases():
    with pytest.raises(GraftError, match=r"training\.epochs >= 2, not 1"):
        LinearProbeThenFineTune().phases(1, STAGES)
    with pytest.raises(GraftError, match=r"probe_fraction=1\.0"):
        LinearProbeThenFineTune(probe_fraction=1.0)


def test_rates():
    assert Uniform().multipliers(STAGES) == {"stem": 1.0, "layer1": 1.0, "layer2": 1.0}
    assert BackboneRatio(0.1).multipliers(STAGES) == {"stem": 0.1, "layer1": 0.1, "layer2": 0.1}

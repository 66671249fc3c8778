import itertools
import os
from collections import Counter

import pytest
import torch
import torch.distributed as dist

from graft.data.sampling import EvalBatches, SemiBatches, TrainBatches, balanced_weights


def epochs(batches, numbers):
    """Indices of every batch of some epochs."""
    drawn = []
    for number in numbers:
        batches.set_epoch(number)
        drawn.append([indices.tolist() for _, indices in batches])
    return drawn


def flat(batches):
    return [index for batch in batches for index in batch]


def test_once_goes_through_every_sample_and_shuffles_each_epoch():
    first, second = epochs(TrainBatches(10, 4, seed=0), [0, 1])
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(10))
    assert first != second


def test_a_last_batch_of_one_is_left_out_unless_batches_are_of_one():
    assert len(TrainBatches(9, 4, seed=0)) == 2
    assert len(TrainBatches(1, 4, seed=0)) == 1
    assert len(TrainBatches(9, 1, seed=0)) == 9


def test_order_and_augmentation_depend_on_seed_and_epoch_alone():
    one, two = TrainBatches(10, 4, seed=0), TrainBatches(10, 4, seed=0)
    epochs(one, range(3))
    assert epochs(one, [5]) == epochs(two, [5])
    assert epochs(TrainBatches(10, 4, seed=1), [5]) != epochs(two, [5])
    seeds = [seed for epoch in (0, 1) for seed, _ in (two.set_epoch(epoch), list(two))[1]]
    assert len(set(seeds)) == len(seeds)


def test_cycle_gives_full_batches_and_every_sample_equally_often():
    batches = TrainBatches(10, 4, seed=0, steps=5)  # 5 steps of 4 are two passes over 10 samples
    drawn = [flat(epoch) for epoch in epochs(batches, range(3))]
    assert [len(epoch) for epoch in drawn] == [20, 20, 20]
    for epoch in drawn:
        assert set(epoch[:10]) == set(epoch[10:]) == set(range(10))
    assert len({tuple(epoch[start : start + 10]) for epoch in drawn for start in (0, 10)}) == 6, "reshuffled each cycle"


def test_cycle_is_one_stream_however_long_an_epoch_is():
    short = flat(epochs(TrainBatches(7, 3, seed=0, steps=2), range(6)))
    long = flat(epochs(TrainBatches(7, 3, seed=0, steps=6), range(2)))
    assert short == long


def test_cycle_repeats_samples_when_a_batch_is_larger_than_the_data():
    (epoch,) = epochs(TrainBatches(3, 7, seed=0, steps=1), [0])
    assert Counter(epoch[0]).most_common(1)[0][1] == 3


def test_start_goes_on_inside_an_epoch():
    batches = TrainBatches(10, 2, seed=0)
    batches.set_epoch(1)
    whole = [(seed, indices.tolist()) for seed, indices in batches]
    batches.start = 3
    assert [(seed, indices.tolist()) for seed, indices in batches] == whole[3:]


def test_fixed_repeats_the_first_epoch():
    first, second = epochs(TrainBatches(10, 4, seed=0, fixed=True), [0, 1])
    assert first == second


@pytest.mark.parametrize("steps", [None, 50])
def test_balanced_weights_draw_classes_equally(steps):
    labels = torch.tensor([0] * 900 + [1] * 100)
    (epoch,) = epochs(TrainBatches(1000, 20, seed=0, steps=steps, weights=balanced_weights(labels)), [0])
    share = labels[flat(epoch)].float().mean()
    assert 0.45 < share < 0.55


def test_evaluation_counts_every_sample_once_in_order():
    drawn = [index for _, indices in EvalBatches(11, 4) for index in indices.tolist()]
    assert drawn == list(range(11))
    assert len(EvalBatches(11, 4)) == 3


def test_evaluation_of_sequences_takes_those_of_about_one_length_together():
    lengths = torch.randint(100, (50,))
    drawn = [indices for _, indices in EvalBatches(50, 10, lengths=lambda: lengths)]
    assert torch.cat(drawn).sort().values.tolist() == list(range(50))
    ranges = sorted((int(lengths[indices].min()), int(lengths[indices].max())) for indices in drawn)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(ranges))
    assert [lengths[indices].float().mean() for indices in drawn] != sorted(lengths[i].float().mean() for i in drawn)
    again = [indices.tolist() for _, indices in EvalBatches(50, 10, lengths=lambda: lengths)]
    assert again == [indices.tolist() for indices in drawn], "the same in every epoch"


def test_a_batch_of_texts_comes_in_parts_where_padding_would_be_much_of_it():
    lengths = torch.tensor([*[10] * 60, *range(11, 51), *[50] * 28])
    plain, parts = ([i for _, i in EvalBatches(128, 64, lengths=lambda: lengths, parts=p)] for p in (False, True))

    def padded(batches):
        return sum(len(i) * int(lengths[i].max()) for i in batches) / int(lengths.sum())

    assert len(plain) == 2 < len(parts) <= 16
    assert torch.cat(parts).sort().values.tolist() == list(range(128))
    assert padded(plain) > 1.2
    assert padded(parts) < 1.15
    assert min(map(len, parts)) >= 8
    equal = [len(i) for _, i in EvalBatches(128, 64, lengths=lambda: torch.full((128,), 9), parts=True)]
    assert equal == [64, 64]


def _of_process(rank, world, folder):
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    train = epochs(TrainBatches(11, 2, seed=0), [0])[0]
    cycle = epochs(TrainBatches(11, 2, seed=0, steps=3), [0])[0]
    seeds = [seed for seed, _ in TrainBatches(11, 2, seed=0)]
    evaluation = [indices.tolist() for _, indices in EvalBatches(9, 4, lengths=lambda: torch.arange(9) % 4)]
    gathered = [None] * world
    dist.all_gather_object(gathered, (train, cycle, seeds, evaluation))
    if rank == 0:
        torch.save(gathered, f"{folder}/drawn.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_share_an_epoch_equally_and_evaluation_counts_nothing_twice(tmp_path):
    torch.multiprocessing.spawn(_of_process, args=(2, tmp_path), nprocs=2)
    (train, cycle, seeds, evaluation), (train1, cycle1, seeds1, evaluation1) = torch.load(tmp_path / "drawn.pt")
    assert [len(batch) for batch in train] == [len(batch) for batch in train1] == [2, 2]
    assert not set(flat(train)) & set(flat(train1))
    assert not set(seeds) & set(seeds1)
    alone = epochs(TrainBatches(11, 4, seed=0, steps=3), [0])[0]
    assert [sorted(a + b) for a, b in zip(cycle, cycle1, strict=True)] == [sorted(batch) for batch in alone]
    assert len(evaluation) == len(evaluation1) == 2, "unequal numbers of batches would hang"
    assert sorted(flat(evaluation + evaluation1)) == list(range(9))


def test_buckets_hold_samples_of_about_one_length_and_every_sample_once():
    lengths = torch.arange(103) % 50
    batches = TrainBatches(103, 10, seed=0, lengths=lambda: lengths)
    epochs = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        epochs.append([indices for _, indices in batches])
        assert torch.cat(epochs[-1]).sort().values.tolist() == list(range(103))
        assert [len(indices) for indices in epochs[-1]] == [10] * 10 + [3]
        spread = [int(lengths[indices].max() - lengths[indices].min()) for indices in epochs[-1][:-1]]
        assert max(spread) < 15
    assert epochs[0][0].tolist() != epochs[1][0].tolist()


@pytest.mark.parametrize("steps", [None, 4])
def test_a_resumed_run_draws_the_same_buckets(steps):
    def make():
        batches = TrainBatches(23, 5, seed=0, steps=steps, lengths=lambda: torch.arange(23) % 7)
        batches.set_epoch(2)
        return batches

    whole = [indices.tolist() for _, indices in make()]
    resumed = make()
    resumed.start = 2
    assert [indices.tolist() for _, indices in resumed] == whole[2:]


def test_a_partly_labelled_epoch_goes_through_the_unlabelled_samples_and_cycles_the_labelled_ones():
    unlabelled = TrainBatches(10, 4, ("seed", "unlabelled"))
    batches = SemiBatches(TrainBatches(3, 2, "seed", len(unlabelled)), unlabelled)
    for epoch in range(3):
        batches.set_epoch(epoch)
        drawn = [indices for _, indices in batches]
        assert [len(indices) for indices in drawn] == [6, 6, 4] == [len(batches.indices(n, 0)) for n in range(3)]
        assert all(bool((indices[:2] < 3).all()) and bool((indices[2:] >= 3).all()) for indices in drawn)
        assert sorted(torch.cat([indices[2:] for indices in drawn]).tolist()) == [*range(3, 13)]
        first = torch.cat([indices[:2] for indices in drawn])
        assert first.bincount().tolist() == [2, 2, 2]
    batches.start = 2
    assert torch.equal(next(iter(batches))[1], drawn[2])

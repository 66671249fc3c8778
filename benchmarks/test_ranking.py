"""The table of the ranking's benchmark, from records that were not measured."""

from benchmarks.ranking import DATA, jobs, key_of, tau_table

ORDER = ("efficientnet_lite0", "mobilenet_v2", "efficientnet_lite0@null", "lenet@null")


def records(scores, values):
    """Measures and scores of both seeds for the backbones of digits."""
    for backbone, score, value in zip(ORDER, scores, values, strict=True):
        yield {"data": "digits", "backbone": backbone, "what": "measures", "values": {"logme": value, "leep": None}}
        for seed in (0, 1):
            yield {"data": "digits", "backbone": backbone, "what": "full", "seed": seed, "score": score + 0.01 * seed}


def rows_of(lines):
    """Cells by the first one."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line]
    return {row[0]: row[1:] for row in cells}


def test_tau_regret_and_ceiling():
    scores = [0.9, 0.8, 0.7, 0.5]
    found = rows_of(tau_table([*records(scores, [4, 3, 2, 1])], "full", random=True))
    assert found["LogME"] == ["1.00", "1.00", "0.0"]
    assert found["LEEP"] == ["-", "-", "-"]
    assert found["noise ceiling: one seed's scores by the other's"][0] == "1.00"
    found = rows_of(tau_table([*records(scores, [1, 2, 3, 4])], "full", random=True))
    assert found["LogME"] == ["-1.00", "-1.00", "40.0"]


def test_without_random_weights_only_pretrained_ones_count():
    lines = tau_table([*records([0.9, 0.8, 0.95, 0.5], [1, 2, 9, 4])], "full", random=False)
    assert "digits (2)" in lines[1]
    assert rows_of(lines)["LogME"] == ["-1.00", "-1.00", "10.0"]
    assert tau_table([], "full", random=False) == []


def test_jobs_are_told_apart_and_measured_once():
    every = [key_of(job) for job in jobs([*DATA])]
    assert len(every) == len(set(every))
    assert sum(what == "measures" for _, _, what, _ in every) == sum(len(backbones) for _, backbones in DATA.values())
    assert len(every) == 5 * sum(len(backbones) for _, backbones in DATA.values())

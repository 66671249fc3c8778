"""Contestants without processes: what they say to the other side, and how rounds are shared out."""

import pytest

from benchmarks.turns import Contestant, Epoch, Finished, Turn, launches


class Pipe:
    """The other side of a turn, which answers what it was given."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.sent = []

    def send(self, message):
        self.sent.append(message)

    def recv(self):
        return self.answers.pop(0)


def test_a_turn_reports_the_epoch_before_and_ends_when_no_turn_is_left():
    pipe = Pipe("go", "go", "stop")
    turn = Turn(pipe)
    turn.begin()
    turn.begin()
    with pytest.raises(Finished):
        turn.begin()
    assert [type(message) for message in pipe.sent] == [str, Epoch, Epoch]
    assert all(epoch.seconds > 0 and epoch.helpers_cpu_s == 0 for epoch in pipe.sent[1:])


@pytest.mark.parametrize(("repeats", "rounds"), [(1, [1]), (5, [5]), (6, [3, 3]), (10, [5, 5]), (11, [4, 4, 3])])
def test_processes_start_anew_after_some_rounds(repeats, rounds):
    assert launches(repeats) == rounds


def test_a_contestant_whose_package_is_missing_says_so():
    assert not Contestant("some", lambda plan, turn: None, needs=("no_such_package",)).installed
    assert Contestant("some", lambda plan, turn: None, needs=("torch",)).installed

"""The text of the stress's report."""

from __future__ import annotations

import dataclasses

from tests.stress import report
from tests.stress.kernels import Options
from tests.stress.report import Failure, Fault, Figures


def figures() -> Figures:
    """Make figures of three scenarios. One has failed twice."""
    found = Figures("interrupts", tried=30)
    found.failures += [
        Failure(Fault.LOST, "await, begun +1.00 ms, #3"),
        Failure(Fault.LOST, "await, begun +0.50 ms, #7", "CancelledError"),
        Failure(Fault.KILLED, "input, sent +0.10 ms, #9", "exit status 1"),
        Failure(Fault.LEFT, "input, sent +0.10 ms, #9", "tasks ['a']"),
    ]
    return found


def test_the_table_has_a_line_for_each_part_and_a_column_for_each_fault() -> None:
    lines = report.table([figures(), Figures("soak", tried=300)]).splitlines()

    assert lines[0].split() == ["part", "tried", "lost", "no", "reply", "killed", "left"]
    assert lines[1].split() == ["interrupts", "30", "2", "0", "1", "1"]
    assert lines[2].split() == ["soak", "300", "0", "0", "0", "0"]


def test_a_try_that_fails_twice_in_one_way_counts_once() -> None:
    found = figures()
    found.failures.append(found.failures[0])

    assert found.count(Fault.LOST) == 2


def test_a_scenario_that_fails_in_two_tries_counts_twice() -> None:
    found = figures()
    found.failures.append(dataclasses.replace(found.failures[0], number=8))

    assert found.count(Fault.LOST) == 3


def test_failures_of_one_kind_are_one_line_with_the_first_as_example() -> None:
    text = report.text([figures()], seed=5)

    assert "interrupts: 2 x lost, await; first: await, begun +1.00 ms, #3\n" in text
    assert "interrupts: 1 x killed, input; first: input, sent +0.10 ms, #9: exit status 1\n" in text


def test_the_report_says_how_to_repeat_it() -> None:
    text = report.text([figures(), Figures("soak")], 5, str(Options(5, quick=True, only="a b")))

    assert text.endswith(
        "Seed 5. To repeat: python -m tests.stress --seed 5 --quick --only='a b' interrupts soak"
    )


def test_what_was_left_out_is_said() -> None:
    text = report.text([Figures("forced", left_out="there is no C compiler (cc)")], seed=5)

    assert "LEFT OUT  forced: there is no C compiler (cc)" in text


def test_only_faults_are_a_failure() -> None:
    assert report.has_failed([figures()])
    assert not report.has_failed([Figures("soak", tried=300, notes=["took 60 s"])])


def test_a_failure_is_said_in_one_line() -> None:
    assert str(figures().failures[1]) == "LOST: await, begun +0.50 ms, #7: CancelledError"

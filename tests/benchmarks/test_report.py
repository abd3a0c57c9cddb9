"""Test the arithmetic and the layout of the benchmark's tables."""

from __future__ import annotations

import sys

from tests.benchmarks import profile, report, rounds, widget
from tests.benchmarks.cases import CASES
from tests.benchmarks.tools import LOOPNB, STOCK, TRACKING
from tests.browser import wire

NESTED = CASES[0].name
TOOLS = [STOCK, LOOPNB, TRACKING]


def samples(loopnb: list[float]) -> dict[str, dict[str, list[float]]]:
    """Return samples in which the stock loop is slow in the last round."""
    return {case.name: {"stock": [1.0, 1.0, 2.0], "loopnb": loopnb, TRACKING.name: loopnb} for case in CASES}


def test_tools_are_compared_round_by_round() -> None:
    ratio = report.ratio(samples([1.1, 1.1, 2.2])[NESTED], "loopnb", "stock")

    assert f"{ratio:.2f}" == "1.10 (1.10-1.10)"


def test_a_target_is_held_against_the_median_to_two_digits() -> None:
    reached = {target.most: target.is_reached for target in report.targets(samples([1.154, 1.154, 2.308]))}

    assert reached == {1.15: True, 1.03: False, 1.25 if sys.version_info < (3, 14) else 1.40: True}


def test_tools_that_were_not_measured_have_no_targets() -> None:
    assert {target.base for target in report.targets(samples([1.0, 1.0, 1.0]))} == {"stock"}


def test_markdown_has_a_cell_for_each_tool() -> None:
    lines = report.as_markdown(report.timings(samples([1.1, 1.1, 2.2]), TOOLS)).splitlines()

    assert {line.count("|") for line in lines} == {len(TOOLS) + 2}
    assert "1000000.00 us" in lines[2]
    assert "1.10 (1.10-1.10)x" in lines[2]


def phase(core: float, late_ms: float, messages: int = 1) -> widget.Phase:
    """Return what was seen of a view for ten seconds."""
    heard = wire.Heard(bytes=100_000, messages=messages, largest=31_000)
    return widget.Phase(
        10.0,
        core,
        [late_ms] * 100,
        600,
        40.0,
        work_ms=0.0,
        script_ms=0.0,
        rows=30,
        page_core=0.1,
        heard=heard,
    )


FINDINGS = widget.Findings(
    hidden=[phase(0.10, 2.0, 0), phase(0.30, 9.0, 0)],
    shown={"grouped": [phase(0.125, 8.0), phase(0.325, 14.9)]},
    scrolled=phase(0.2, 5.0)._replace(frames=500, worst_ms=90.0, work_ms=81.0, script_ms=9.0),
    scrolled_copy=phase(0.1, 2.0)._replace(page_core=0.05),
    cancel_ms=[100.0, 310.0],
    named_ms=[600.0, 710.0],
    ack_ms=[150.0],
    quiet=phase(0.0, 0.0, 5),
    restart_ms=130.0,
    shutdown_ms=2_100.0,
)


def test_what_the_widget_costs_is_what_comes_on_top_of_the_load() -> None:
    cells = {figure.what: figure.cells()[1:] for figure in widget.figures(FINDINGS)}

    assert cells["kernel, beyond the load: grouped"] == [
        "2.5 % of a core",
        "at most 3 % of a core",
        "reached",
    ]
    assert cells["p99 of the loop's lag, beyond the load's own: grouped"][2] == "NOT REACHED"
    assert cells["over the wire: grouped"][0] == "10 kB/s"
    assert cells["frames: grouped"] == ["60 fps", "at least 55 fps", "reached"]
    assert cells["click Cancel to gone, worst"] == ["310 ms", "at most 300 ms", "NOT REACHED"]
    assert cells["start of a cell that blocks to its name in the header, worst"] == [
        "710 ms",
        "at most 700 ms",
        "NOT REACHED",
    ]
    assert cells["restart of the kernel to the view's word of it"] == [
        "130 ms",
        "at most 2,000 ms",
        "reached",
    ]
    assert cells["Shut Down of the kernel to the view's word of it"][2] == "NOT REACHED"
    assert cells["messages while nobody looks"] == ["0", "at most 0", "reached"]
    assert cells["messages while nothing changes"][2] == "reached"


def test_what_the_page_does_by_itself_is_said_beside_what_it_does_for_the_view() -> None:
    lines = widget.own(FINDINGS).splitlines()

    assert lines[-2:] == [
        "- scrolled: 50.0 frames a second, the worst after 90 ms; 10.0 % of a core; "
        "the longest work for one 81 ms, the view's script in it 9 ms",
        "- a copy of it scrolled: 60.0 frames a second, the worst after 40 ms; 5.0 % of a core; "
        "the longest work for one below 50 ms",
    ]


def test_a_profile_names_what_runs_more_than_in_stock_asyncio() -> None:
    stock, ours = {"step": 10.0, "wakeup": 5.0}, {"step": 10.0, "park": 30.0}

    assert profile.table([stock, ours]) == [
        ["all", "15", "40"],
        ["park", "0", "30"],
        ["other functions", "15", "10"],
    ]


def test_a_nested_run_is_profiled_function_by_function() -> None:
    counted = rounds.profile(LOOPNB, next(iter(profile.CASES)))

    assert counted["loopnb.nesting.engine.Handoff.wait"] > 0


def test_tracking_adds_nothing_to_a_step() -> None:
    """Count, do not time: the layout of its memory makes a process some percent faster or slower."""
    step = "task step, await sleep(0)"

    stock = rounds.profile(STOCK, step)

    assert rounds.profile(TRACKING, step) == rounds.profile(LOOPNB, step) == stock

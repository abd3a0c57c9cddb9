"""Who waits for whom, as a tree: tasks of one shape share a line, and each task has its place once."""

from __future__ import annotations

from typing import Any

import pytest

from loopnb import trees
from loopnb.records import AwaitGraph, CellRef, TaskRecord
from loopnb.tracking.graph import finish


def task(number: int, name: str = "", *, coro: str = "work", **fields: Any) -> TaskRecord:
    """Return the record of a task that waits at a line of In[4]."""
    values: dict[str, Any] = {
        "state": "waiting",
        "spawned_at": float(number),
        "cell": CellRef("c", 4),
        "spawn_site": "In[4], line 9",
        "waits_at": f"{coro} In[4], line 3",
        "waits_for": "sleep()",
        **fields,
    }
    return TaskRecord(number=number, name=name or f"t{number}", coro=coro, **values)


def graph_of(
    tasks: list[TaskRecord], awaits: dict[int, tuple[int, ...]], **fields: frozenset[int]
) -> AwaitGraph:
    """Return a graph."""
    none: frozenset[int] = frozenset()
    return AwaitGraph(
        {record.number: record for record in tasks},
        awaits,
        fields.get("any_of", none),
        fields.get("cyclic", none),
    )


def shown(graph: AwaitGraph, below: dict[int, tuple[int, ...]] | None = None, now: float = 20.0) -> list[str]:
    """Return the lines of the tree of *graph*."""
    below = graph.awaits if below is None else below
    roots = finish(trees.roots_of(graph.records, below, lambda _task: True))
    tree = finish(trees.tree_of(graph.records, below, roots))
    return finish(trees.tree_text(tree, graph, now, {})).splitlines()


def test_tasks_of_one_shape_share_a_line_with_their_count_and_the_oldest_age() -> None:
    graph = graph_of([task(number, coro="fetch") for number in range(1, 313)], {})

    assert shown(graph, now=13.0) == ["312 x fetch() at In[4], line 3, wait for sleep(), oldest 12 s"]


def test_what_a_task_waits_for_stands_below_it() -> None:
    top = task(1, "top", coro="main", waits_for="task leaf")
    graph = graph_of([top, task(2, "leaf")], {1: (2,)})

    assert shown(graph) == [
        "task 1 'top'  main() at In[4], line 3, waits for task leaf",
        "    task 2 'leaf'  work() at In[4], line 3, waits for sleep()",
    ]


def test_what_tasks_of_one_shape_wait_for_is_put_together() -> None:
    tops = [task(number, coro="main", waits_for=f"task t{number + 10}") for number in (1, 2, 3)]
    graph = graph_of([*tops, *(task(number) for number in (11, 12, 13))], {1: (11,), 2: (12,), 3: (13,)})

    assert [line.partition(",")[0] for line in shown(graph)] == [
        "3 x main() at In[4]",
        "    3 x work() at In[4]",
    ]


def test_a_task_that_two_wait_for_has_its_place_once() -> None:
    tops = [task(1, coro="one"), task(2, coro="two")]
    graph = graph_of([*tops, task(3, "shared")], {1: (3,), 2: (3,)})

    lines = shown(graph)
    assert sum("'shared'" in line for line in lines) == 2
    assert lines[-1] == "    task 3 'shared'  work() at In[4], line 3 (see above)"


def test_a_circle_is_marked_and_ends() -> None:
    tasks = [task(1, coro="one", waits_for="task b"), task(2, coro="two", waits_for="task a")]
    graph = graph_of(tasks, {1: (2,), 2: (1,)}, cyclic=frozenset({1, 2}))

    lines = shown(graph)
    assert len(lines) == 3
    assert all("in a circle" in line for line in lines)
    assert "see above" in lines[-1]


def test_a_wait_for_the_first_of_some_says_so() -> None:
    graph = graph_of([task(1, coro="main"), task(2), task(3)], {1: (2, 3)}, any_of=frozenset({1}))

    assert "(one of these is enough)" in shown(graph)[0]


@pytest.mark.parametrize("is_folded", [True, False])
def test_a_diamond_of_forty_layers_takes_as_many_visits_as_it_has_edges(is_folded: bool) -> None:
    tasks: list[TaskRecord] = []
    awaits: dict[int, tuple[int, ...]] = {}
    for layer in range(40):
        for side in (0, 1):
            number = layer * 2 + side
            tasks.append(task(number, coro="work" if is_folded else f"work{side}"))
            if layer:
                awaits[number] = (layer * 2 - 2, layer * 2 - 1)
    graph = graph_of(tasks, awaits)

    roots = finish(trees.roots_of(graph.records, awaits, lambda _task: True))
    tree = finish(trees.tree_of(graph.records, awaits, roots))
    assert tree.visits <= 4 * len(tasks)


def test_a_long_tree_says_how_many_tasks_are_missing() -> None:
    graph = graph_of([task(number, coro=f"f{number}") for number in range(trees.MOST_LINES + 5)], {})

    lines = shown(graph)
    assert len(lines) == trees.MOST_LINES + 1
    assert lines[-1] == "5 more tasks are not shown."


def test_a_task_of_the_kernels_is_shown_only_if_a_users_task_stands_below_it() -> None:
    cell, idle = task(1, "cell", is_kernel=True), task(2, "idle", is_kernel=True)
    graph = graph_of([cell, idle, task(3, "users")], {1: (3,)})

    lines = shown(graph)
    assert len(lines) == 2
    assert "'cell'" in lines[0]


def test_who_spawned_whom_is_a_tree_too() -> None:
    graph = graph_of([task(1, "top"), task(2, "child", parent=1), task(3, "orphan", parent=99)], {})

    lines = shown(graph, finish(trees.spawned_by(graph.records)))
    assert [line.split("  ")[0] for line in lines if not line.startswith(" ")] == [
        "task 1 'top'",
        "task 3 'orphan'",
    ]
    assert lines[1].startswith("    task 2 'child'")


def test_a_name_cannot_break_a_line() -> None:
    (line,) = shown(graph_of([task(1, "a", coro="b\nc\x1b[31m")], {}))

    assert "\x1b" not in line


def test_a_tree_of_many_tasks_is_made_in_many_steps() -> None:
    count = 4_000
    graph = graph_of([task(number) for number in range(count + 1)], dict.fromkeys(range(1, count + 1), (0,)))
    steps = {"roots": 0, "tree": 0, "spawned": 0}

    def counted(name: str, generator: trees.Steps[Any]) -> Any:
        while True:
            try:
                next(generator)
            except StopIteration as stop:
                return stop.value
            steps[name] += 1

    roots = counted("roots", trees.roots_of(graph.records, graph.awaits, lambda _task: True))
    tree = counted("tree", trees.tree_of(graph.records, graph.awaits, roots))
    counted("spawned", trees.spawned_by(graph.records))

    assert len(tree.branches[0].numbers) == count
    assert min(steps.values()) >= count // 512

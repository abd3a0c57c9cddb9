"""What a view does by itself, on a plain page with a fake kernel."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from .contrast import borders, contrasts
from .plain import THEMES, PlainPage

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

pytestmark = pytest.mark.timeout(120)

FETCHES = [{"number": number, "waits_for": "bytes from 127.0.0.1:8080"} for number in range(1, 41)]
FEED = {
    "number": 100,
    "name": "feed",
    "coro": "feed",
    "cell": "In[3]",
    "state": "running",
    "waits_at": "feed In[3], line 2",
}
PARKED = {
    "number": 101,
    "name": "report",
    "coro": "report",
    "cell": "In[3]",
    "state": "parked",
    "waits_at": "report In[3], line 9",
}
STUBBORN = {
    "number": 102,
    "name": "stubborn",
    "coro": "stubborn",
    "state": "cancelling",
    "cancelling_since_s": 998.0,
    "note": "runs its finally at In[3], line 8",
    "waits_at": "stubborn In[3], line 8",
}
SINGLE = [FEED, PARKED, STUBBORN]
MANY = [{"number": number, "name": f"job-{number:05}"} for number in range(10_000)]
FINISHED = [
    {
        "key": "f1",
        "number": 1,
        "name": "boom",
        "coro": "boom",
        "state": "raised",
        "cell": "In[4]",
        "duration_s": 0.52,
        "ended_s": 990.0,
        "error": "ValueError: no <b>",
        "waits_at": "",
        "spawn_site": "In[4], line 1",
        "depth": 0,
    },
    {
        "key": "f2",
        "number": 2,
        "name": "fine",
        "coro": "fine",
        "state": "returned",
        "cell": "In[4]",
        "duration_s": 61.0,
        "ended_s": 995.0,
        "error": "",
        "waits_at": "",
        "spawn_site": "In[4], line 1",
        "depth": 0,
    },
]
DETAIL = {
    "chain": [
        {"text": "fetch", "place": "In[4], line 3", "task": None},
        {"text": "inner", "place": "", "task": 7},
    ],
    "awaited_by": [{"number": 3, "label": "task 3 'main'"}],
    "parents": ["task 1 'main'"],
    "spawn_site": "In[4], line 7",
    "blocks": ["1.2 s at In[4], line 9: time.sleep"],
    "output": ["hello"],
    "result": "",
    "traceback": "",
    "cancelled_by": "",
}
HEAD: dict[str, Any] = {
    "lag": {"p50_ms": 0.31, "p99_ms": 4.2, "max_ms": 312, "recent": [1] * 60},
    "finding": {
        "severity": "warning",
        "summary": "The loop was blocked.",
        "remedy": "Use `await`.",
        "more": 2,
    },
    "leftovers": 3,
    "mended": "A closed loop was replaced.",
}
BLOCK = """kernel.blocks({
    text: "In[7], line 3: time.sleep", place: "In[7], line 3", call: "time.sleep", since_s: kernel.now - 1.2,
    remedy: "Use await asyncio.sleep().", task: 100, group: null,
})"""
TREE = [
    {"depth": 0, "text": "main", "numbers": [1], "count": 1, "is_cycle": False, "is_again": False},
    {
        "depth": 1,
        "text": "<i>40 x fetch</i>",
        "numbers": [1, 2, 3],
        "count": 40,
        "is_cycle": True,
        "is_again": False,
    },
]
TIMELINE = {
    "lanes": [{"lane": "In[3]", "tasks": 1}],
    "bars": {
        "1": {
            "lane": "In[3]",
            "number": 1,
            "name": "<b>job",
            "coro": "f",
            "from_s": 900.0,
            "to_s": None,
            "state": "waiting",
        }
    },
    "blocks": [{"from_s": 960.0, "to_s": 963.0, "text": "time.sleep"}],
}


def names(view: PlainPage) -> list[str]:
    """Return the names of the rows, from the top of the page down."""
    found: list[str] = view.panel.evaluate(
        """panel => [...panel.querySelectorAll(".loopnb-row")]
            .toSorted((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)
            .map(row => row.querySelector(".loopnb-name")?.textContent)"""
    )
    return found


def wait_names(view: PlainPage, *expected: str) -> None:
    """Wait until these are the rows."""
    view.page.wait_for_function(
        """expected => [...document.querySelectorAll(".loopnb-row")]
            .toSorted((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)
            .map(row => row.querySelector(".loopnb-name")?.textContent).join() === expected.join()""",
        arg=list(expected),
    )


def drawn(view: PlainPage) -> None:
    """Wait until the fake kernel has answered, and the view has drawn what it has been told."""
    view.page.evaluate(
        """() => new Promise(done =>
            setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done))))"""
    )


def scroll_to(view: PlainPage, top: int) -> None:
    """Scroll the rows."""
    view.panel.locator(".loopnb-scroll").evaluate("(scroll, top) => { scroll.scrollTop = top; }", top)


def focused(view: PlainPage) -> str:
    """Return the name of the row that has the focus, or else the focused element's class."""
    found: str = view.page.evaluate(
        """() => document.activeElement.querySelector(".loopnb-name")?.textContent
            ?? document.activeElement.className.split(" ").at(-1)"""
    )
    return found


def test_forty_downloads_are_one_row_that_opens(page: Page) -> None:
    view = PlainPage(page, [*FETCHES, FEED])
    wait_names(view, "40 × fetch", "feed")
    expect(view.row("40 × fetch")).to_contain_text("bytes from 127.0.0.1:8080")
    view.row("40 × fetch").click()

    expect(view.row("Task-1fetch")).to_have_count(1)
    expect(view.row("40 × fetch")).to_have_attribute("aria-expanded", "true")
    heights = view.rows.evaluate_all("rows => rows.map(row => row.getBoundingClientRect().height)")
    assert set(heights) == {32}

    view.row("40 × fetch").click()
    wait_names(view, "40 × fetch", "feed")


def test_many_tasks_are_cancelled_by_a_second_click_only(page: Page) -> None:
    view = PlainPage(page, [*FETCHES, FEED])
    button = view.row("40 × fetch").locator(".loopnb-cancel")
    button.click()
    expect(button).to_have_text("Cancel 40?")
    assert view.heard("cancel") == []

    button.click()
    expect(view.panel.locator(".loopnb-note")).to_have_text("cancelled 40 tasks")
    [request] = view.heard("cancel")
    assert "group" in request


def test_the_users_line_comes_before_what_it_waits_for(page: Page) -> None:
    view = PlainPage(
        page, [{**FEED, "line": "In[3], line 2: await jobs.get()", "waits_for": "Queue.get of jobs"}]
    )
    waits = view.rows.first.locator(".loopnb-waits")

    expect(waits.locator(".loopnb-for")).to_have_text("In[3], line 2: await jobs.get()")
    expect(waits.locator(".loopnb-at")).to_have_text("Queue.get of jobs")


@pytest.mark.parametrize("width", [1000, 700, 320])
def test_a_leftover_has_a_chip_at_every_width(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 600})
    note = "left over from an earlier run of its cell"
    view = PlainPage(page, [{**FEED, "is_leftover": True, "note": note}, *SINGLE[1:]])
    chip = view.rows.first.locator(".loopnb-leftover")

    expect(chip).to_be_visible()
    expect(chip).to_have_text("left over")
    expect(chip).to_have_attribute("title", "left over from an earlier run of In[3]")
    expect(view.rows.first).not_to_contain_text(note)
    expect(view.rows.nth(1).locator(".loopnb-leftover")).to_be_hidden()
    page.set_viewport_size({"width": 1200, "height": 800})


def test_leftovers_are_cancelled_by_their_button(page: Page) -> None:
    view = PlainPage(page, SINGLE, head=HEAD)
    view.panel.get_by_role("button", name="Cancel 3 leftovers").click()

    [request] = view.heard("cancel")
    assert request["leftovers"] is True


def test_an_answer_that_is_not_final_keeps_the_button_busy(page: Page) -> None:
    view = PlainPage(page, SINGLE)
    view.kernel("kernel.isSilent = true")
    button = view.row("feed").locator(".loopnb-cancel")
    button.click()
    expect(button).to_have_attribute("aria-busy", "true")
    [request] = view.heard("cancel")
    answer = {"op": "ack", "id": request["id"], "ok": True, "text": "cancelling feed", "final": False}
    view.kernel(f"kernel.say({json.dumps(answer)})")
    expect(view.panel.locator(".loopnb-note")).to_have_text("cancelling feed")
    expect(button).to_have_text("Cancelling…")
    answer |= {"ok": False, "text": "feed refused to cancel", "final": True}
    view.kernel(f"kernel.say({json.dumps(answer)})")

    expect(button).to_have_attribute("aria-busy", "false")
    expect(view.panel.locator(".loopnb-note")).to_have_attribute("data-ok", "false")


def test_ten_thousand_tasks_are_sixty_rows_in_the_page_and_all_can_be_reached(page: Page) -> None:
    view = PlainPage(page, MANY, options={"height": None, "group": False})
    expect(view.row("job-00000")).to_be_visible()
    assert view.rows.count() <= 60
    scroll = view.panel.locator(".loopnb-scroll")
    for share in (0.3, 0.7, 1.0):
        scroll.evaluate("(scroll, share) => { scroll.scrollTop = scroll.scrollHeight * share; }", share)
        expect(view.panel.locator("[data-gap]")).to_have_count(0)
        assert view.rows.count() <= 60

    expect(view.row("job-09999")).to_be_in_viewport()
    view.row("job-09999").locator(".loopnb-cancel").click()
    expect(view.panel.locator(".loopnb-note")).to_have_text("cancelled job-09999")


def test_most_turns_of_the_wheel_leave_the_rows_in_the_page_alone(page: Page) -> None:
    view = PlainPage(page, MANY, options={"height": None, "group": False})
    expect(view.row("job-00000")).to_be_visible()
    view.kernel(
        """kernel.isSilent = true;
        window.changes = 0;
        let note = found => { changes += found.length; };
        let rows = document.querySelector(".loopnb-rows");
        let moved = { subtree: true, attributes: true, attributeFilter: ["style"] };
        new MutationObserver(note).observe(rows, { childList: true });
        new MutationObserver(note).observe(rows, moved);"""
    )
    scroll = view.panel.locator(".loopnb-scroll")
    for top in (30, 60, 90, 120):
        scroll.evaluate("(scroll, top) => { scroll.scrollTop = top; }", top)
        drawn(view)
    assert page.evaluate("changes") == 0

    scroll.evaluate("scroll => { scroll.scrollTop = 250; }")
    drawn(view)
    assert page.evaluate("changes") > 0
    expect(view.row("job-00021")).to_have_count(1)


def test_the_page_uses_its_rows_again_while_the_user_scrolls(page: Page) -> None:
    view = PlainPage(page, MANY, options={"height": None, "group": False})
    expect(view.row("job-00000")).to_be_visible()
    scroll_to(view, 3_200)
    expect(view.row("job-00100")).to_contain_text("waiting")
    expect(view.panel.locator("[data-gap]")).to_have_count(0)
    view.kernel("window.known = new Set(document.querySelectorAll('.loopnb-row'))")
    for top in (3_500, 3_800, 4_100, 3_300):
        scroll_to(view, top)
        expect(view.row(f"job-{top // 32:05}")).to_have_attribute("aria-rowindex", str(top // 32 + 2))
        assert page.evaluate("[...document.querySelectorAll('.loopnb-row')].every(row => known.has(row))")

    # Readers who hear the rows hear them in their order, once nothing moves any more.
    page.wait_for_function(
        """() => {
            let places = [...document.querySelectorAll(".loopnb-row")].map(row => Number(row.ariaRowIndex));
            return places.every((place, at) => at === 0 || place === places[at - 1] + 1);
        }"""
    )


def test_rows_that_have_not_arrived_say_nothing(page: Page) -> None:
    view = PlainPage(page, MANY, options={"height": None, "group": False})
    expect(view.row("job-00000")).to_be_visible()
    view.kernel("kernel.isSilent = true")
    scroll_to(view, 160_000)
    expect(view.panel.locator(".loopnb-row:not([data-gap])")).to_have_count(0)
    assert set(view.rows.all_text_contents()) == {""}

    view.kernel("kernel.isSilent = false")
    scroll_to(view, 0)
    expect(view.row("job-00000")).to_contain_text("waiting")
    expect(view.panel.locator("[data-gap]")).to_have_count(0)


def test_a_row_that_is_used_again_says_nothing_of_the_task_before(page: Page) -> None:
    groups = [
        {"number": number, "coro": f"coro_{number // 11:02}", "is_leftover": number < 11}
        for number in range(60 * 11)
    ]
    view = PlainPage(page, groups)
    first = view.row("coro_00")
    first.locator(".loopnb-cancel").click()
    expect(first.locator(".loopnb-cancel")).to_have_text("Cancel 11?")
    scroll_to(view, 1_200)
    expect(first).to_have_count(0)
    expect(view.panel.locator("[data-gap]")).to_have_count(0)
    expect(view.panel.locator("[data-armed]")).to_have_count(0)

    # The pointer holds the rows. One ends while it cannot be seen: nobody knows how old it was.
    scroll_to(view, 0)
    expect(first.locator(".loopnb-age")).not_to_have_text("")
    first.hover()
    scroll_to(view, 1_200)
    expect(first).to_have_count(0)
    view.kernel("kernel.tasks = kernel.tasks.filter(task => task.number >= 11); kernel.push()")
    scroll_to(view, 0)
    expect(first).to_have_attribute("data-ended", "")
    expect(first.locator(".loopnb-age")).to_have_text("")


def test_rows_neither_move_nor_vanish_under_the_pointer(page: Page) -> None:
    view = PlainPage(
        page,
        [
            {**FEED, "number": number, "name": name, "cell": None, "coro": name}
            for number, name in enumerate("abcd")
        ],
    )
    wait_names(view, *"abcd")
    view.rows.nth(2).hover()
    view.kernel(
        """kernel.tasks = kernel.tasks.filter(task => task.name !== "a").toReversed();
        kernel.push({ ended: { t0: "returned" } })"""
    )
    first = view.rows.filter(has=page.locator('[data-state="returned"]'))
    expect(first).to_have_attribute("data-ended", "")
    assert names(view) == [*"abcd"]
    expect(first.locator(".loopnb-cancel")).to_be_hidden()
    view.rows.nth(2).locator(".loopnb-cancel").click()
    expect(view.panel.locator(".loopnb-note")).to_have_text("cancelled c")
    assert names(view) == [*"abcd"]
    expect(view.panel.locator(".loopnb-foot")).to_contain_text("stay in place")

    page.mouse.move(5, 5)
    wait_names(view, "d", "b")


#: What comes and goes above the rows, one after the other.
ABOVE = (
    "kernel.push({ head: { finding: null, mended: '' } })",
    f"kernel.push({{ head: {json.dumps({name: HEAD[name] for name in ('finding', 'mended')})} }})",
    BLOCK,
    "kernel.push({ head: { cells: [], leftovers: 0, lag: null } })",
    "kernel.push({ head: { text: 'In[7] runs, '.repeat(20) } })",
)


@pytest.mark.parametrize("width", [1200, 320])
@pytest.mark.parametrize("by", ["pointer", "focus"])
def test_what_comes_and_goes_above_the_rows_does_not_move_them(page: Page, by: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    view = PlainPage(page, SINGLE, head=HEAD)
    top = "row => row.getBoundingClientRect().top"
    row = view.row("feed")
    if by == "pointer":
        row.hover()
    else:
        view.panel.locator(".loopnb-find").focus()
        page.keyboard.press("Tab")
        row.focus()
    before = row.evaluate(top)
    for script in ABOVE:
        view.kernel(script)
        drawn(view)
        assert row.evaluate(top) == before, script
    view.kernel("kernel.tasks.shift(); kernel.push({ ended: { t100: 'raised' } })")
    expect(row).to_have_attribute("data-state", "raised")
    assert row.evaluate(top) == before

    if by == "pointer":
        page.mouse.move(2, 2)
    else:
        page.keyboard.press("Escape")
    wait_names(view, "report", "stubborn")
    header = view.panel.locator(".loopnb-head")
    assert header.evaluate("head => head.scrollHeight <= head.clientHeight"), "something is cut off"
    page.set_viewport_size({"width": 1200, "height": 800})


def test_no_line_above_held_rows_is_cut_in_two(page: Page) -> None:
    view = PlainPage(page, SINGLE, head={**HEAD, "mended": ""})
    finding = view.panel.locator(".loopnb-finding")
    expect(finding).to_contain_text("blocked")
    view.row("feed").hover()
    expect(view.panel).to_have_attribute("data-held", "")
    bottom = "finding => finding.closest('.loopnb-head').getBoundingClientRect().bottom"
    is_seen = """finding => {
        let box = finding.getBoundingClientRect();
        let head = finding.closest(".loopnb-head").getBoundingClientRect();
        return box.left < head.right - 1 && box.bottom <= head.bottom;
    }"""
    before = finding.evaluate(bottom)
    assert finding.evaluate(is_seen)

    long = {**HEAD["finding"], "summary": "The loop was blocked. " * 20}
    view.kernel(f"kernel.push({{ head: {{ finding: {json.dumps(long)} }} }})")
    expect(finding).to_contain_text("blocked. The loop was blocked.")
    assert finding.evaluate(bottom) == before
    assert not finding.evaluate(is_seen)

    page.mouse.move(2, 2)
    expect(view.panel).not_to_have_attribute("data-held", "")
    assert finding.evaluate(is_seen)


def test_what_vanishes_below_the_rows_does_not_move_them(page: Page) -> None:
    page.set_viewport_size({"width": 320, "height": 400})
    view = PlainPage(page, SINGLE)
    page.evaluate("document.getElementById('outside').style.marginTop = '1000px'")
    view.kernel(f"kernel.say({{ op: 'ack', id: null, ok: true, text: {'long ' * 99!r} }})")
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    row = view.row("stubborn")
    box = row.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 60, box["y"] + 5)
    expect(view.panel).to_have_attribute("data-held", "")
    view.kernel("kernel.say({ op: 'ack', id: null, ok: true, text: 'short' })")
    drawn(view)

    assert row.bounding_box() == box
    page.set_viewport_size({"width": 1200, "height": 800})


def test_rows_stay_while_the_keyboard_is_among_them(page: Page) -> None:
    view = PlainPage(page, SINGLE)
    wait_names(view, "feed", "report", "stubborn")
    view.panel.locator(".loopnb-find").focus()
    page.keyboard.press("Escape")
    view.rows.first.focus()
    page.keyboard.press("ArrowDown")
    assert focused(view) == "report"
    view.kernel("kernel.tasks.shift(); kernel.push({ ended: { t100: 'raised' } })")
    expect(view.rows.first).to_have_attribute("data-ended", "")
    assert names(view) == ["feed", "report", "stubborn"]
    assert focused(view) == "report"

    page.keyboard.press("Escape")
    wait_names(view, "report", "stubborn")


def test_the_table_is_one_tab_stop_and_keys_do_all(page: Page) -> None:
    view = PlainPage(page, [*FETCHES, *SINGLE])
    pause = view.panel.get_by_role("button", name="Pause")
    pause.focus()
    page.keyboard.press("Tab")
    assert focused(view) == "40 × fetch"
    for key, expected in {
        "ArrowDown": "feed",
        "End": "stubborn",
        "ArrowUp": "report",
        "Home": "40 × fetch",
        "PageDown": "stubborn",
    }.items():
        page.keyboard.press(key)
        assert focused(view) == expected, key
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(view.row("Task-1fetch")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    assert focused(view) == "Task-1"
    page.keyboard.press("ArrowLeft")
    assert focused(view) == "40 × fetch"
    page.keyboard.press("ArrowLeft")
    expect(view.row("Task-1fetch")).to_have_count(0)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Delete")
    expect(view.panel.locator(".loopnb-note")).to_have_text("cancelled feed")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert focused(view) == "loopnb-sort"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(view.panel.get_by_role("columnheader", name="Task")).to_have_attribute("aria-sort", "ascending")
    page.keyboard.press("/")
    assert focused(view) == "loopnb-find"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "outside"


def test_the_focus_survives_what_the_kernel_sends_and_a_long_way(page: Page) -> None:
    view = PlainPage(page, MANY, options={"height": None, "group": False})
    expect(view.row("job-00000")).to_be_visible()
    view.panel.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    page.wait_for_function("document.activeElement.textContent.includes('job-09999')")
    view.kernel("kernel.push()")
    page.keyboard.press("ArrowUp")
    page.wait_for_function("document.activeElement.textContent.includes('job-09998')")


def test_no_key_reaches_the_page_around(page: Page) -> None:
    view = PlainPage(page, SINGLE)
    page.evaluate(
        "() => { window.leaked = []; document.body.addEventListener('keydown', e => leaked.push(e.key)); }"
    )
    view.rows.first.focus()
    for key in ("x", "d", "d", "ArrowDown", "/", "a", "Escape"):
        page.keyboard.press(key)

    assert page.evaluate("leaked") == []


def test_sorting_says_so_and_filters_find(page: Page) -> None:
    view = PlainPage(page, [*FETCHES, *SINGLE])
    view.panel.get_by_role("button", name="Task", exact=True).click()
    assert view.heard("query")[-1]["query"]["sort"] == "name"
    expect(view.panel.get_by_role("columnheader", name="Task")).to_have_attribute("aria-sort", "ascending")
    view.panel.get_by_role("button", name="Task", exact=True).click()
    expect(view.panel.get_by_role("columnheader", name="Task")).to_have_attribute("aria-sort", "descending")

    view.panel.locator(".loopnb-find").fill("REPORT")
    wait_names(view, "report")
    view.panel.locator(".loopnb-find").fill("nothing like that")
    expect(view.panel.locator(".loopnb-empty")).to_have_text("No task matches the filters.")
    view.panel.locator(".loopnb-find").fill("")
    view.panel.locator(".loopnb-cells").select_option("In[3]")
    wait_names(view, "report", "feed")
    view.panel.locator(".loopnb-cells").select_option("")
    chip = view.panel.get_by_role("button", name="1 parked")
    chip.click()
    wait_names(view, "report")
    expect(chip).to_have_attribute("aria-pressed", "true")
    chip.click()
    expect(view.rows).to_have_count(4)


def test_pause_freezes_rows_and_ages_and_says_so(page: Page) -> None:
    view = PlainPage(page, SINGLE)
    wait_names(view, "feed", "report", "stubborn")
    view.panel.get_by_role("button", name="Pause").click()
    expect(view.panel.locator(".loopnb-live")).to_contain_text("paused, as of")
    before = view.rows.all_inner_texts()
    view.kernel("kernel.tasks.pop(); kernel.tasks[0].state = 'parked'; kernel.clock_s += 100; kernel.push()")
    page.wait_for_timeout(600)  # longer than the tick of the ages
    assert view.rows.all_inner_texts() == before

    view.panel.get_by_role("button", name="Pause").click()
    wait_names(view, "feed", "report")


def test_the_header_grows_by_itself_while_the_loop_is_blocked(page: Page) -> None:
    view = PlainPage(page, SINGLE)
    view.kernel(f"kernel.isSilent = true; {BLOCK}")
    condition = view.panel.locator(".loopnb-now")
    expect(condition).to_contain_text(re.compile(r"blocked by In\[7\], line 3: time.sleep\s*\d+(\.\d)? s"))
    expect(condition).not_to_have_text(condition.text_content() or "")
    expect(view.panel.locator(".loopnb-remedy")).to_have_text("Use await asyncio.sleep().")
    expect(view.row("feed")).to_have_attribute("data-state", "blocking")
    expect(view.row("feed")).to_contain_text("time.sleep at In[7], line 3")

    view.kernel("kernel.push()")
    expect(condition).to_contain_text("idle")
    expect(view.row("feed")).to_have_attribute("data-state", "running")


def test_the_header_says_how_late_the_loop_is_and_what_is_wrong(page: Page) -> None:
    lag = {"p50_ms": 0.31, "p99_ms": 4.2, "max_ms": 312, "recent": [0] * 59 + [1_000]}
    view = PlainPage(page, SINGLE, head={**HEAD, "lag": lag})
    expect(view.panel.locator(".loopnb-lag-text")).to_have_text("late by 0.3 / 4.2 / 312 ms")
    finding = view.panel.locator(".loopnb-finding")
    expect(finding).to_have_text("The loop was blocked. Use `await`. (2 more: %loopnb doctor)")
    expect(finding).to_have_attribute("data-severity", "warning")
    expect(view.panel.locator(".loopnb-mended")).to_have_text("A closed loop was replaced.")
    highest = view.panel.locator(".loopnb-spark").evaluate(
        """canvas => {
            let { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let at = (x, y) => data[4 * (y * canvas.width + x) + 3];
            let heights = Array.from({ length: canvas.width }, (_, x) =>
                Array.from({ length: canvas.height }, (_, y) => at(x, y)).filter(Boolean).length);
            return heights.map((height) => height / canvas.height);
        }"""
    )

    assert highest[-2] == 1  # a second ago the loop was late by a second
    assert max(highest[:-2]) < 0.2
    view.kernel("kernel.push({ head: { lag: null, finding: null, mended: '' } })")
    for part in ("lag", "finding", "mended"):
        expect(view.panel.locator(f".loopnb-{part}")).to_be_hidden()


def test_the_kernels_own_tasks_are_asked_for_by_a_button(page: Page) -> None:
    view = PlainPage(page, SINGLE)
    button = view.panel.get_by_role("button", name="Kernel", exact=True)
    for is_shown in (True, False):
        button.click()
        expect(button).to_have_attribute("aria-pressed", str(is_shown).lower())
        assert view.heard("query")[-1]["query"]["kernels"] is is_shown


def test_enter_opens_and_closes_a_group_and_a_task(page: Page) -> None:
    view = PlainPage(page, [*FETCHES, FEED], detail=DETAIL)
    view.panel.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(view.row("Task-1fetch")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(view.panel.locator(".loopnb-detail")).to_contain_text("Spawned at")
    assert view.heard("detail")[-1]["number"] == 1

    page.keyboard.press("Enter")
    expect(view.panel.locator(".loopnb-detail")).to_be_hidden()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(view.row("Task-1fetch")).to_have_count(0)


def test_a_silent_kernel_is_not_said_to_be_live(page: Page) -> None:
    view = PlainPage(page, SINGLE)
    expect(view.panel.locator(".loopnb-live")).to_have_text("live")
    view.kernel("kernel.isSilent = true")

    expect(view.panel.locator(".loopnb-live")).to_contain_text(re.compile(r"no answer for \d+ s"))


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (
            "kernel.isSilent = true; kernel.fire('comm_live_update')",
            "This view belongs to the kernel that was lost at",
        ),
        ("kernel.say({ op: 'end', why: 'unloaded', text: 'loopnb was unloaded.' })", "loopnb was unloaded."),
        ("kernel.say({ op: 'beat', epoch: 'another', seq: 0, clock_s: 0 })", "before its restart at"),
    ],
)
def test_a_view_without_a_kernel_says_so_and_is_grey(page: Page, how: str, text: str) -> None:
    view = PlainPage(page, SINGLE, head=HEAD)
    wait_names(view, "feed", "report", "stubborn")
    view.kernel(how)

    expect(view.panel.locator(".loopnb-end")).to_contain_text(text)
    expect(view.rows.first.locator(".loopnb-cancel")).to_be_disabled()
    ages = view.panel.locator(".loopnb-age").all_inner_texts()
    heard = len(view.kernel("return kernel.heard"))
    page.wait_for_timeout(600)  # longer than the tick of the ages
    assert view.panel.locator(".loopnb-age").all_inner_texts() == ages
    assert len(view.kernel("return kernel.heard")) == heard


def test_a_view_without_a_kernel_claims_nothing_that_it_cannot_know(page: Page) -> None:
    view = PlainPage(page, SINGLE)
    wait_names(view, "feed", "report", "stubborn")
    view.kernel(UNLOADED)
    expect(view.panel.locator(".loopnb-end")).to_be_visible()
    for click in (
        view.panel.get_by_role("tab", name="Finished"),
        view.panel.locator(".loopnb-titles .loopnb-sort", has_text="Task"),
        view.panel.locator(".loopnb-chip:visible").first,
        view.rows.first,
    ):
        click.click(force=True)
        drawn(view)

        expect(view.panel.locator("[aria-selected=true]")).to_have_text("Tasks")
        expect(view.panel.locator(".loopnb-detail")).to_be_hidden()
        expect(view.panel.locator(".loopnb-chip[aria-pressed=true]")).to_have_count(0)
        expect(view.panel.locator("[aria-sort=ascending], [aria-sort=descending]")).to_have_text(
            re.compile("Age")
        )


def test_a_comm_that_comes_back_is_no_restart(page: Page) -> None:
    view = PlainPage(page, SINGLE)
    view.kernel("kernel.fire('comm_live_update')")
    page.wait_for_timeout(1_500)  # longer than the view waits for an answer

    expect(view.panel.locator(".loopnb-end")).to_be_hidden()


def test_a_view_is_quiet_while_a_cell_runs(timed_page: Page) -> None:
    view = PlainPage(timed_page, SINGLE)
    timed_page.clock.pause_at(timed_page.evaluate("Date.now() / 1000") + 60)
    view.kernel("kernel.push({ head: { cell: 'In[7]', condition: 'running', text: 'In[7] runs' } })")
    before = len(view.heard("visible"))
    timed_page.clock.run_for(60_000)
    assert len(view.heard("visible")) == before

    view.kernel("kernel.push({ head: { cell: null, condition: 'idle', text: 'idle' } })")
    timed_page.clock.run_for(30_000)
    assert len(view.heard("visible")) == before + 3


def test_a_view_that_missed_something_asks_for_everything(page: Page) -> None:
    view = PlainPage(page, SINGLE)
    view.kernel("kernel.seq += 5; kernel.tasks.pop(); kernel.push()")

    wait_names(view, "feed", "report")
    assert len(view.heard("resync")) == 1


def test_finished_tasks_have_their_outcome(page: Page) -> None:
    view = PlainPage(page, SINGLE, finished=FINISHED)
    view.panel.get_by_role("tab", name="Finished").click()

    wait_names(view, "boom", "fine")
    expect(view.row("boom")).to_contain_text("ValueError: no <b>")
    expect(view.row("boom")).to_contain_text("520 ms")
    expect(view.panel.locator(".loopnb-cancel")).to_have_count(0)
    view.panel.get_by_role("tab", name="Tasks").click()
    wait_names(view, "feed", "report", "stubborn")


def test_the_detail_tells_what_is_known(page: Page) -> None:
    view = PlainPage(page, SINGLE, detail=DETAIL)
    view.row("feed").click()
    detail = view.panel.locator(".loopnb-detail")
    for text in ("fetch  In[4], line 3", "task 3 'main'", "time.sleep", "hello", "In[4], line 7"):
        expect(detail).to_contain_text(text)
    expect(detail).not_to_contain_text("Failed with")

    page.evaluate(
        """() => Object.defineProperty(navigator, "clipboard",
            { value: { writeText: async (text) => { window.copied = text; } } })"""
    )
    detail.get_by_role("button", name="Copy as text").click()
    expect(view.panel.locator(".loopnb-note")).to_have_text("Copied.")
    assert "Waits in:\n  fetch  In[4], line 3\n  inner" in page.evaluate("window.copied")
    detail.get_by_role("button", name="inner").click()
    assert view.heard("detail")[-1]["number"] == 7
    detail.get_by_role("button", name="Close").click()
    expect(detail).to_be_hidden()
    assert view.heard("detail")[-1]["number"] is None


def test_the_tree_marks_cycles(page: Page) -> None:
    view = PlainPage(page, SINGLE, tree=TREE)
    view.panel.get_by_role("tab", name="Tree").click()
    lines = view.panel.locator(".loopnb-tree-line")

    expect(lines).to_have_count(2)
    expect(lines.nth(1)).to_have_text("<i>40 x fetch</i>cycle")
    view.panel.get_by_role("button", name="Who spawned whom").click()
    assert [message["kind"] for message in view.heard("tree")] == ["awaits", "spawned"]
    view.panel.get_by_role("tab", name="Tasks").click()
    assert view.heard("tree")[-1]["kind"] is None


def test_the_timeline_is_drawn_and_says_what_is_under_the_pointer(page: Page) -> None:
    view = PlainPage(page, SINGLE, timeline=TIMELINE)
    view.panel.get_by_role("tab", name="Timeline").click()
    canvas = view.panel.locator(".loopnb-canvas")
    expect(canvas).to_have_attribute(
        "aria-label", re.compile("1 task in 1 lane, the loop was blocked 1 time")
    )
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 40, box["y"] + 28)

    expect(view.panel.locator(".loopnb-hover")).to_have_text(
        re.compile(r"<b>job, In\[3\]: waiting, 1 min \d\d s")
    )
    painted = canvas.evaluate(
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)"
    )
    assert painted

    page.mouse.move(box["x"] + box["width"] - 10, box["y"] + 28)
    expect(view.panel.locator(".loopnb-hover")).to_be_visible()
    hover = view.panel.locator(".loopnb-hover").bounding_box()
    assert hover is not None
    assert hover["height"] < 30  # one line
    assert hover["y"] + hover["height"] <= box["y"] + box["height"]
    assert hover["x"] + hover["width"] <= box["x"] + box["width"] + 1

    with page.expect_download() as download:
        view.panel.get_by_role("button", name="Export").click()
        request = view.heard("trace")[-1]
        view.page.evaluate(
            """request => ["[1,", "2]"].forEach((text, part) =>
                kernel.say({ op: "trace", view: request.view, id: request.id, part, parts: 2, text }))""",
            request,
        )
    assert json.loads(download.value.path().read_text()) == [1, 2]
    view.panel.get_by_role("tab", name="Tasks").click()
    assert view.heard("timeline")[-1]["shown"] is False


def test_an_export_that_is_asked_for_again_has_the_pieces_of_one_answer(page: Page) -> None:
    view = PlainPage(page, SINGLE, timeline=TIMELINE)
    view.panel.get_by_role("tab", name="Timeline").click()
    export = view.panel.get_by_role("button", name="Export")
    export.click()
    first = view.heard("trace")[-1]

    def answer(request: dict[str, Any], part: int, text: str) -> None:
        piece = {"op": "trace", "view": request["view"], "id": request["id"], "part": part, "parts": 2}
        view.kernel(f"kernel.say({json.dumps({**piece, 'text': text})})")

    with page.expect_download() as download:
        answer(first, 0, "[1,")
        export.click()
        second = view.heard("trace")[-1]
        answer(first, 1, "2]")
        answer(second, 0, "[3,")
        answer(second, 1, "4]")

    assert first["id"] != second["id"]
    assert json.loads(download.value.path().read_text()) == [3, 4]


HOSTILE = "<img src=x onerror='window.hacked = 1'>\u202eevil\n"


def test_names_reprs_and_errors_are_text_on_every_surface(page: Page) -> None:
    texts = {
        "name": HOSTILE,
        "coro": HOSTILE,
        "waits_for": HOSTILE,
        "waits_at": HOSTILE,
        "line": HOSTILE,
        "is_leftover": True,
        "note": HOSTILE,
        "spawn_site": HOSTILE,
        "cell": HOSTILE,
    }
    line = {**TREE[0], "text": HOSTILE}
    detail = {
        **{name: [HOSTILE] for name in ("parents", "blocks", "output")},
        **dict.fromkeys(("spawn_site", "result", "traceback", "cancelled_by"), HOSTILE),
        "chain": [{"text": HOSTILE, "place": HOSTILE, "task": None}],
        "awaited_by": [{"number": 3, "label": HOSTILE}],
    }
    finished = [{**FINISHED[0], **texts, "error": HOSTILE}]
    finding = {"severity": "error", "summary": HOSTILE, "remedy": HOSTILE, "more": 0}
    head = {"text": HOSTILE, "finding": finding, "mended": HOSTILE, "cells": [HOSTILE]}
    bar = {**TIMELINE["bars"]["1"], "name": HOSTILE, "lane": HOSTILE}  # type: ignore[index]  # a plain dict
    timeline = {"lanes": [{"lane": HOSTILE, "tasks": 1}], "bars": {"1": bar}, "blocks": []}
    view = PlainPage(
        page, [{**FEED, **texts}], head=head, finished=finished, detail=detail, tree=[line], timeline=timeline
    )
    view.rows.first.click()
    expect(view.panel.locator(".loopnb-detail-section").first).to_be_visible()
    view.kernel(BLOCK.replace("In[7], line 3: time.sleep", "<img src=x>"))
    for tab in ("Finished", "Tree", "Timeline"):
        view.panel.get_by_role("tab", name=tab).click()
        drawn(view)
        assert view.panel.locator("img").count() == 0
    view.kernel(f"kernel.say({json.dumps({'op': 'end', 'why': 'fault', 'text': HOSTILE})})")
    expect(view.panel.locator(".loopnb-end")).to_contain_text("<img")

    assert view.panel.locator("img").count() == 0
    assert page.evaluate("window.hacked") is None


def test_a_name_of_several_lines_takes_one_row_and_an_empty_one_is_a_number(page: Page) -> None:
    tasks = [{"number": 1, "name": "two\nlines\r\nthree"}, {"number": 2, "name": " ", "coro": "other"}]
    view = PlainPage(page, tasks)
    wait_names(view, "two\nlines\r\nthree", "task 2")

    assert view.rows.first.locator(".loopnb-name").evaluate("name => name.getClientRects().length") == 1
    assert view.rows.first.locator(".loopnb-name").evaluate("name => name.offsetHeight") < 32


def test_an_override_of_direction_does_not_leave_its_name(page: Page) -> None:
    view = PlainPage(page, [{**FEED, "name": "\u202eabc", "coro": "plain"}])
    coro = view.rows.first.locator(".loopnb-coro").bounding_box()
    name = view.rows.first.locator(".loopnb-name").bounding_box()

    assert coro is not None
    assert name is not None
    assert coro["x"] > name["x"]


@pytest.mark.parametrize("width", [1200, 700, 320, 200])
def test_cancel_is_in_reach_at_every_width(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    view = PlainPage(page, [*FETCHES, *SINGLE], head=HEAD)
    view.row("40 × fetch").click()
    for button in view.panel.locator(".loopnb-button:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width, button.inner_text()
    assert view.page.evaluate("document.documentElement.scrollWidth") <= width

    view.row("Task-2fetch").locator(".loopnb-cancel").click()
    expect(view.panel.locator(".loopnb-note")).to_have_text("cancelled Task-2")
    page.set_viewport_size({"width": 1200, "height": 800})


@pytest.mark.parametrize("width", [1200, 320, 200])
def test_no_button_of_a_row_is_cut_off(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    view = PlainPage(page, [*({**task, "coro": "job", "name": "job"} for task in MANY), FEED])
    view.kernel("kernel.isSilent = true")
    button = view.row("10,000 ×").locator(".loopnb-cancel")
    for text in ("Cancel all", "Cancel 10,000?", "Cancelling…"):
        expect(button).to_have_text(text)
        is_whole = button.evaluate(
            """button => {
                let { left, right, top } = button.getBoundingClientRect();
                return [left + 2, right - 2].every(x => document.elementFromPoint(x, top + 9) === button);
            }"""
        )
        assert is_whole, text
        button.click()
    page.set_viewport_size({"width": 1200, "height": 800})


def test_columns_keep_their_widths_whatever_they_hold(page: Page) -> None:
    view = PlainPage(page, SINGLE)
    wait_names(view, "feed", "report", "stubborn")
    widths = """() => [...document.querySelectorAll(".loopnb-column, .loopnb-row > *")]
        .map(cell => cell.getBoundingClientRect().width)"""
    before = page.evaluate(widths)
    wide = {"name": "x" * 150, "waits_for": "y" * 190, "cell": "In[1234567]", "spawned_s": -9e6, "busy": 1}
    view.kernel(f"Object.assign(kernel.tasks[0], {json.dumps(wide)}); kernel.push()")
    expect(view.rows.first).to_contain_text("xxx")

    assert page.evaluate(widths) == before


UNLOADED = "kernel.say({ op: 'end', why: 'unloaded', text: 'loopnb was unloaded' })"

#: What is done one after the other, with a look at all colours after each.
STATES: dict[str, Callable[[PlainPage], object]] = {
    "live": lambda view: view.row("report").hover(),
    "asked twice": lambda view: view.row("40 × fetch").locator(".loopnb-cancel").click(),
    "ended": lambda view: view.kernel(
        "kernel.tasks.splice(41, 1); kernel.push({ ended: { t101: 'raised' } })"
    ),
    "detail": lambda view: view.row("stubborn").locator(".loopnb-name").click(),
    "blocked": lambda view: view.kernel(BLOCK),
    "paused": lambda view: view.panel.get_by_role("button", name="Pause").click(),
    "finished": lambda view: view.panel.get_by_role("tab", name="Finished").click(),
    "tree": lambda view: view.panel.get_by_role("tab", name="Tree").click(),
    "timeline": lambda view: view.panel.get_by_role("tab", name="Timeline").click(),
    "tasks again": lambda view: view.panel.get_by_role("tab", name="Tasks").click(),
    "gone": lambda view: view.kernel(UNLOADED),
}


@pytest.mark.parametrize("theme", THEMES)
def test_everything_has_contrast(page: Page, theme: str) -> None:
    surfaces = {"finished": FINISHED, "detail": DETAIL, "tree": TREE, "timeline": TIMELINE}
    view = PlainPage(page, [*FETCHES, *SINGLE], theme, head=HEAD, **surfaces)
    for name, act in STATES.items():
        act(view)
        drawn(view)
        texts: list[dict[str, Any]] = contrasts(view.panel)
        assert len(texts) > 15
        assert [text for text in texts if text["ratio"] < 4.5] == [], f"{name} in {theme}"
        lines = borders(view.panel)
        assert [line for line in lines if line["ratio"] < 3] == [], f"{name} in {theme}"


@pytest.mark.parametrize("height", [150, 300])
def test_the_table_is_as_high_as_asked_for(page: Page, height: int) -> None:
    view = PlainPage(page, MANY[:100], options={"height": height, "group": False})
    scroll = view.panel.locator(".loopnb-scroll")

    assert scroll.evaluate("scroll => scroll.getBoundingClientRect().height") == height
    assert scroll.evaluate("scroll => scroll.scrollHeight") > height


def test_the_highest_table_is_full_of_rows(page: Page) -> None:
    page.set_viewport_size({"width": 1200, "height": 3_000})
    view = PlainPage(page, MANY, options={"height": 2_900, "group": False})
    scroll = view.panel.locator(".loopnb-scroll")
    for top in (0, 50_017):
        scroll.evaluate("(scroll, top) => { scroll.scrollTop = top; }", top)
        expect(view.panel.locator("[data-gap]")).to_have_count(0)
        below = scroll.evaluate(
            """scroll => {
                let bottom = node => node.getBoundingClientRect().bottom;
                return Math.max(...[...scroll.querySelectorAll(".loopnb-row")].map(bottom)) - bottom(scroll);
            }"""
        )
        assert below >= 0
        assert view.rows.count() <= 60
    page.set_viewport_size({"width": 1200, "height": 800})


def test_the_kernels_own_tasks_have_no_cancel(page: Page) -> None:
    view = PlainPage(page, [{**FEED, "is_kernel": True}, PARKED], detail=DETAIL)
    expect(view.row("report").locator(".loopnb-cancel")).to_be_visible()
    expect(view.row("feed").locator(".loopnb-cancel")).to_be_hidden()
    view.row("feed").click()
    expect(view.panel.locator(".loopnb-detail-cancel")).to_be_hidden()
    page.keyboard.press("Delete")

    assert view.heard("cancel") == []


def test_a_task_without_a_name_is_called_by_its_number(page: Page) -> None:
    view = PlainPage(page, [{**FEED, "name": ""}, {**FEED, "number": 2, "coro": "two", "name": ""}])

    expect(view.panel.locator(".loopnb-row .loopnb-name")).to_have_text(["task 100", "task 2"])
    expect(view.panel.locator(".loopnb-row .loopnb-coro")).to_have_text(["feed", "two"])
    assert view.rows.evaluate_all("rows => rows.map(row => row.getBoundingClientRect().height)") == [32, 32]


def test_readers_announce_outcomes_and_nothing_else(page: Page) -> None:
    view = PlainPage(page, SINGLE, head=HEAD)
    regions = "[aria-live], [role=status], [role=alert], [role=log]"
    view.kernel(
        f"""window.announced = [];
        for (let region of document.querySelectorAll("{regions}"))
            new MutationObserver(() => announced.push(region.textContent))
                .observe(region, {{ childList: true, characterData: true, subtree: true }});"""
    )
    for script in ABOVE:
        view.kernel(script)
        drawn(view)
    view.kernel("kernel.tasks[0].state = 'waiting'; kernel.push()")
    view.kernel("kernel.tasks.shift(); kernel.push({ ended: { t100: 'returned' } })")
    wait_names(view, "report", "stubborn")
    assert page.evaluate("announced") == []

    view.row("stubborn").locator(".loopnb-cancel").click()
    expect(view.panel.locator(".loopnb-note")).to_have_text("cancelled stubborn")
    assert page.evaluate("announced") == ["cancelled stubborn"]


def test_forced_colours_and_reduced_motion_are_heeded(page: Page) -> None:
    page.emulate_media(forced_colors="active", reduced_motion="reduce")
    view = PlainPage(page, [*FETCHES, *SINGLE])
    view.row("feed").click()

    assert view.row("feed").evaluate("row => getComputedStyle(row).outlineStyle") == "solid"
    moving = view.panel.evaluate(
        """panel => [...panel.querySelectorAll("*")].filter(node => {
            let style = getComputedStyle(node);
            return style.animationName !== "none" || !/^0s(, 0s)*$/.test(style.transitionDuration);
        }).length"""
    )
    assert moving == 0
    page.emulate_media(forced_colors="none", reduced_motion="no-preference")


def test_a_view_that_is_removed_leaves_nothing(page: Page) -> None:
    view = PlainPage(page, SINGLE)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p class=loopnb-of-e>stored</p>')")
    expect(page.get_by_text("stored")).to_be_hidden()
    view.kernel("window.removeView()")

    assert view.panel.count() == 0
    expect(page.get_by_text("stored")).to_be_visible()  # the table that a saved notebook has
    assert view.heard("visible")[-1]["visible"] is False
    assert view.kernel("return Object.values(kernel.listeners).reduce((n, set) => n + set.size, 0)") == 0

"""Measure the widget at 10,000 tasks, in a real JupyterLab in a real Chromium (`make bench BENCH=--widget`).

One task of the kernel makes the load: a thousand times a second a job goes on to its next wait, or ends, or
begins. Another one notes CPU seconds, and how late the loop is, in a file, so that no cell runs meanwhile.
The view is hidden and shown in turn. What the kernel spends, and how late it is, while nobody looks is the
load's own. The same for the page: what it does while the view is hidden is JupyterLab's own. How fast it can
scroll at all is seen from rows like the view's that no script of ours touches.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from playwright.sync_api import expect, sync_playwright

from tests.browser import wire
from tests.browser.conftest import OPTIONS, find_chromium
from tests.browser.lab import LabPage, LabServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


#: In seconds: how long a view is looked at in one round, and how long before it has settled.
_WINDOW_S, _SETTLE_S = 4.0, 1.5
#: The same where nothing changes. Some messages come every two seconds: one more or less must not count.
_QUIET_S, _CALM_S = 30.0, 10.0

_CELLS = (
    """
    %load_ext loopnb
    import asyncio, json, os, random, time, loopnb
    """,
    """
    COUNT, CHANGES_PER_S = 10_000, 1_000
    chance, waits, is_on = random.Random(1), {}, True

    def next_step(number):
        waits[number] = asyncio.get_running_loop().create_future()
        return waits[number]

    async def job(number):
        while await next_step(number):
            await next_step(number)

    def begin(number):
        jobs[number] = asyncio.create_task(job(number), name=f"job-{number}")

    async def make_changes():
        begun, done = time.monotonic(), 0
        while is_on:
            await asyncio.sleep(0.01)
            due = int((time.monotonic() - begun) * CHANGES_PER_S)
            while done < due:
                number = chance.randrange(COUNT)
                if waits[number].done():
                    continue
                goes_on = chance.random() < 0.6
                waits[number].set_result(goes_on)
                done += 1
                await asyncio.sleep(0)
                if jobs[number].done():
                    begin(number)
                    done += 1

    async def take_notes(path):
        with open(path, "w") as notes:
            due, late = time.monotonic(), []
            while is_on:
                due = max(due + 0.005, time.monotonic())
                await asyncio.sleep(due - time.monotonic())
                late.append(time.monotonic() - due)
                if len(late) == 50:
                    print(json.dumps([time.monotonic(), time.process_time(), late]), file=notes, flush=True)
                    late = []

    jobs = {}
    for number in range(COUNT): begin(number)
    await asyncio.sleep(0)
    load = [asyncio.create_task(make_changes()), asyncio.create_task(take_notes("NOTES"))]
    """,
    "loopnb.show()",
    """
    async def victim(): await asyncio.sleep(3600)
    victims = [asyncio.create_task(victim(), name=f"victim-{n}") for n in range(40)]
    """,
    "while not os.path.exists('GATE'): time.sleep(0.1)",
    "is_on = False",
)
_LOAD, _JOBS, _SHOW, _VICTIM, _BLOCK, _STOP = range(len(_CELLS))

#: Looks at the page for so many seconds, frame by frame. The browser itself tells of frames for which the
#: page worked longer than 50 ms. The view's script is the only one whose address is a blob.
_WATCH_FRAMES = """
    async ([seconds, scrolled]) => {
        let scroll = [...document.querySelectorAll(".loopnb-scroll")].findLast((node) => node.clientHeight);
        let found = { frames: -1, worst_ms: 0, rows: 0, work_ms: 0, script_ms: 0 };
        let began = performance.now(), last = began;
        let note = ({ duration, scripts }) => {
            let ours = scripts.filter((script) => script.sourceURL.startsWith("blob:"));
            let script_ms = ours.reduce((sum, script) => sum + script.duration, 0);
            found.work_ms = Math.max(found.work_ms, duration);
            found.script_ms = Math.max(found.script_ms, script_ms);
        };
        let observer = new PerformanceObserver((list) => list.getEntries().forEach(note));
        observer.observe({ type: "long-animation-frame" });
        await new Promise((done) => {
            let look = (now) => {
                found.frames += 1;
                if (found.frames) found.worst_ms = Math.max(found.worst_ms, now - last);
                last = now;
                found.rows = Math.max(found.rows, document.querySelectorAll(".loopnb-row").length);
                if (scrolled) scroll.scrollTop = (scroll.scrollTop + scrolled) % (scroll.scrollHeight - 500);
                if (now - began < seconds * 1000) requestAnimationFrame(look);
                else done();
            };
            requestAnimationFrame(look);
        });
        observer.takeRecords().forEach(note);
        observer.disconnect();
        return { ...found, seconds: (last - began) / 1000 };
    }"""
#: Puts a copy in the place of the view, with so many rows, that no script touches. The copy is scrolled round
#: and round, since a longer one would have more rows in the page than the view has.
_COPY = """
    (panel, count) => {
        let copy = panel.cloneNode(true);
        copy.id = "copy";
        let body = copy.querySelector(".loopnb-rows");
        let rows = [...body.children];
        let make = (_, index) => {
            let row = rows[index % rows.length].cloneNode(true);
            row.style.transform = `translateY(${index * 32}px)`;
            return row;
        };
        body.replaceChildren(...Array.from({ length: count }, make));
        panel.after(copy);
        panel.style.display = "none";
    }"""
_END_COPY = """
    () => {
        let copy = document.getElementById("copy");
        copy.previousElementSibling.style.display = "";
        copy.remove();
    }"""
#: Clicks Cancel in the first row of a victim, and waits until something is there. Returns milliseconds.
_CLICK_CANCEL = """
    async (isDone) => {
        let names = () => [...document.querySelectorAll(".loopnb-row .loopnb-name")];
        let name = names().find((node) => node.textContent.startsWith("victim-"));
        let victim = name.textContent;
        let note = document.querySelector(".loopnb-note");
        let dones = {
            gone: () => !names().some((node) => node.textContent === victim),
            noted: () => note.textContent.includes("will be cancelled"),
        };
        let began = performance.now();
        name.closest(".loopnb-row").querySelector(".loopnb-cancel").click();
        while (!dones[isDone]()) {
            if (performance.now() - began > 20000) return Infinity;
            await new Promise((done) => setTimeout(done, 5));
        }
        return performance.now() - began;
    }"""

#: Watches a part of the view until it has some text. The time runs from the last event of that type, or press
#: of Enter.
_WATCH_TEXT = """
    ([part, text, type]) => {
        let node = document.querySelector(`.loopnb-${part}`);
        let began = Infinity;
        let note = ({ key }) => { if (!key || key === "Enter") began = performance.now(); };
        addEventListener(type, note, true);
        window.seen = new Promise((done) => {
            let end = (taken_ms) => {
                removeEventListener(type, note, true);
                observer.disconnect();
                done(taken_ms);
            };
            let look = () => { if (node.textContent.includes(text)) end(performance.now() - began); };
            let observer = new MutationObserver(look);
            observer.observe(node, { childList: true, characterData: true, subtree: true });
            setTimeout(end, 60000, Infinity);
        });
    }"""
_SHUT_DOWN = """
    () => {
        dispatchEvent(new Event("shutdown"));
        jupyterapp.commands.execute("kernelmenu:shutdown");
    }"""


class Phase(NamedTuple):
    """What was seen of a view for some seconds.

    Attributes:
        seconds: How long it was looked at.
        core: The kernel's CPU seconds in each second.
        late_ms: How late the loop was, many times.
        frames: How many frames the page drew.
        worst_ms: The longest time between two of them.
        work_ms: The longest time that the page worked for one; 0 if that was less than 50 ms.
        script_ms: How much of such a time the view's script took at most.
        rows: The most rows that the page had.
        page_core: CPU seconds of the page's main thread in each second.
        heard: What the kernel sent.
    """

    seconds: float
    core: float
    late_ms: list[float]
    frames: int
    worst_ms: float
    work_ms: float
    script_ms: float
    rows: int
    page_core: float
    heard: wire.Heard

    @property
    def fps(self) -> float:
        """How many frames the page drew in each second."""
        return self.frames / self.seconds


class Figure(NamedTuple):
    """A measured figure, and the one that is required: at most, or at least where `is_least`."""

    what: str
    measured: float
    required: float
    unit: str
    is_least: bool = False

    @property
    def is_reached(self) -> bool:
        """True if it is as good as required, in the digits that are shown."""
        shown = float(_digits(self.measured).replace(",", ""))
        return shown >= self.required if self.is_least else shown <= self.required

    def cells(self) -> list[str]:
        """Return the cells of its row."""
        word = "least" if self.is_least else "most"
        return [
            self.what,
            f"{_digits(self.measured)} {self.unit}".strip(),
            f"at {word} {_digits(self.required)} {self.unit}".strip(),
            "reached" if self.is_reached else "NOT REACHED",
        ]


def _digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.1f}"


class Findings(NamedTuple):
    """All that was measured.

    Attributes:
        hidden: The phases in which nobody looked.
        shown: Those in which the view was shown, by what it showed, in the same rounds.
        scrolled: The one in which somebody scrolled.
        scrolled_copy: The same for rows that no script touches.
        cancel_ms: From the click to the row's end.
        named_ms: From the key that started a cell that blocked until the view named it.
        ack_ms: From the click to the answer, while that cell blocked.
        quiet: The one in which nothing changed.
        restart_ms: From the click that restarted the kernel until the view said so.
        shutdown_ms: The same for Shut Down.
    """

    hidden: list[Phase]
    shown: dict[str, list[Phase]]
    scrolled: Phase
    scrolled_copy: Phase
    cancel_ms: list[float]
    named_ms: list[float]
    ack_ms: list[float]
    quiet: Phase
    restart_ms: float
    shutdown_ms: float


def figures(found: Findings) -> list[Figure]:
    """Hold what was measured against what is required."""
    rows = []
    seen = [phase for phases in found.shown.values() for phase in phases] + [found.scrolled]
    for name, phases in found.shown.items():
        pairs = list(zip(phases, found.hidden, strict=True))
        core = statistics.median(shown.core - hidden.core for shown, hidden in pairs)
        sent = statistics.median(phase.heard.bytes / phase.seconds for phase in phases)
        late = statistics.median(_p99(shown.late_ms) - _p99(hidden.late_ms) for shown, hidden in pairs)
        rows += [
            Figure(f"kernel, beyond the load: {name}", core * 100, 3, "% of a core"),
            Figure(f"over the wire: {name}", sent / 1000, 64, "kB/s"),
            Figure(f"p99 of the loop's lag, beyond the load's own: {name}", late, 5, "ms"),
        ]
    fps = {name: [phase.fps for phase in phases] for name, phases in found.shown.items()}
    worst = [phase.worst_ms for phase in seen]
    heard = [phase.heard for phase in seen]
    messages = max(phase.heard.messages for phase in found.hidden)
    quiet = found.quiet.heard.messages / found.quiet.seconds
    return [
        *rows,
        Figure("largest message", max(each.largest for each in heard) / 1000, 32, "kB"),
        *(Figure(f"frames: {name}", statistics.median(each), 55, "fps", True) for name, each in fps.items()),
        Figure("frames while scrolling", found.scrolled.fps, 55, "fps", True),
        Figure("worst frame, median of the rounds", statistics.median(worst), 50, "ms"),
        Figure("worst frame of all", max(worst), 50, "ms"),
        Figure("rows in the page", max(phase.rows for phase in seen), 60, ""),
        Figure("click Cancel to gone, median", statistics.median(found.cancel_ms), 300, "ms"),
        Figure("click Cancel to gone, worst", max(found.cancel_ms), 300, "ms"),
        Figure(
            "start of a cell that blocks to its name in the header, worst", max(found.named_ms), 700, "ms"
        ),
        Figure("click answered while a cell blocks, worst", max(found.ack_ms), 300, "ms"),
        Figure("restart of the kernel to the view's word of it", found.restart_ms, 2_000, "ms"),
        Figure("Shut Down of the kernel to the view's word of it", found.shutdown_ms, 2_000, "ms"),
        Figure("messages while nobody looks", messages, 0, ""),
        Figure("messages while nothing changes", quiet, 0.5, "each second"),
    ]


def own(found: Findings) -> str:
    """Return what there was without the widget, and what of a frame's work is the view's. Several lines."""
    core = statistics.median(phase.core for phase in found.hidden)
    late = statistics.median(_p99(phase.late_ms) for phase in found.hidden)
    scrolled = {"scrolled": [found.scrolled], "a copy of it scrolled": [found.scrolled_copy]}
    lines = [
        f"The load alone takes {core * 100:.0f} % of a core, and its loop is late by {late:.1f} ms (p99).",
        "What the page does, with the view",
    ]
    for name, phases in {"hidden": found.hidden, **found.shown, **scrolled}.items():
        lines.append(f"- {name}: {_page_text(phases)}")
    return "\n".join(lines)


def _page_text(phases: list[Phase]) -> str:
    fps = statistics.median(phase.fps for phase in phases)
    worst = statistics.median(phase.worst_ms for phase in phases)
    core = statistics.median(phase.page_core for phase in phases)
    work = max(phase.work_ms for phase in phases)
    script = max(phase.script_ms for phase in phases)
    longest = f"the longest work for one {work:.0f} ms, the view's script in it {script:.0f} ms"
    if not work:
        longest = "the longest work for one below 50 ms"
    return (
        f"{fps:.1f} frames a second, the worst after {worst:.0f} ms; {core * 100:.1f} % of a core; {longest}"
    )


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[-1]


class _Stage:
    """A notebook with the load and a view of it.

    Args:
        lab: The page.
        notes: The file for the kernel's notes.
        gate: The file that ends the cell that blocks.
    """

    def __init__(self, lab: LabPage, notes: Path, gate: Path) -> None:
        self._lab = lab
        self._notes = notes
        self._gate = gate
        self._page = lab.page
        self._devtools = self._page.context.new_cdp_session(self._page)
        self._devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.view = lab.widget(_SHOW)
        self.begin()

    def begin(self) -> None:
        """Begin the load in a new kernel, and show it."""
        for index in (_LOAD, _JOBS, _SHOW):
            self.run(index)
        expect(self.view.locator(".loopnb-row").first).to_contain_text("× job")

    def run(self, cell: int) -> None:
        """Run a cell."""
        failed = self._lab.run(cell)
        if failed:
            raise RuntimeError(failed)
        self._page.mouse.move(2, 2)
        if self.view.count():
            self.view.scroll_into_view_if_needed()

    def show(self, is_shown: bool) -> None:
        """Show the view, or hide it."""
        self.view.evaluate("(panel, shown) => { panel.style.display = shown ? '' : 'none'; }", is_shown)

    def choose(self, *, grouped: bool) -> None:
        """Show groups, or each task as a row."""
        button = self.view.get_by_role("button", name="Group", exact=True)
        if button.get_attribute("aria-pressed") != str(grouped).lower():
            button.click()
        expect(button).to_have_attribute("aria-pressed", str(grouped).lower())
        self._page.mouse.move(2, 2)

    def watch(self, seconds: float, scrolled: int = 0, settle_s: float = _SETTLE_S) -> Phase:
        """Look on for some seconds, once the view has settled. *scrolled*: pixels in each frame."""
        self._page.wait_for_timeout(settle_s * 1000)
        wire.begin(self._page)
        began, page_began = time.monotonic(), self._page_cpu()
        frames = self._page.evaluate(_WATCH_FRAMES, [seconds, scrolled])
        ended, page_ended = time.monotonic(), self._page_cpu()
        page_core = (page_ended - page_began) / (ended - began)
        heard = wire.heard(self._page)
        noted = [note for note in map(json.loads, self._read()) if began <= note[0] <= ended]
        late_ms = [late * 1e3 for _at, _cpu, lates in noted for late in lates]
        core = (noted[-1][1] - noted[0][1]) / (noted[-1][0] - noted[0][0]) if len(noted) > 1 else 0.0
        return Phase(core=core, late_ms=late_ms, page_core=page_core, heard=heard, **frames)

    def _page_cpu(self) -> float:
        """Return how many CPU seconds the page's main thread has spent."""
        metrics = self._devtools.send("Performance.getMetrics")["metrics"]
        return next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")

    def watch_copy(self, scrolled: int) -> Phase:
        """Look on while rows like the view's are scrolled, in a page without the view."""
        self.view.evaluate(_COPY, 60)
        found = self.watch(_WINDOW_S, scrolled=scrolled)
        self._page.evaluate(_END_COPY)
        return found

    def _read(self) -> list[str]:
        return [line for line in self._notes.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def add_victims(self) -> None:
        """Spawn tasks to cancel, and show them first among all tasks."""
        self.run(_VICTIM)
        for direction in ("ascending", "descending"):
            self.view.get_by_role("button", name="Task", exact=True).click()
            title = self.view.get_by_role("columnheader", name="Task")
            expect(title).to_have_attribute("aria-sort", direction)
        self._page.mouse.move(2, 2)
        expect(self.view.locator(".loopnb-row").first).to_contain_text("victim-")

    def click_cancel(self) -> float:
        """Cancel a task, and return the milliseconds until its row is gone."""
        taken_ms: float = self._page.evaluate(_CLICK_CANCEL, "gone")
        return taken_ms

    def click_while_blocked(self) -> tuple[float, float]:
        """Start a cell that blocks, and cancel a task meanwhile.

        Returns:
            The milliseconds until the view names the cell, and until it answers the click.
        """
        header = self.view.locator(".loopnb-now")
        # The last time is over, and its task has ended: a row that is being cancelled takes no other click.
        expect(header).not_to_contain_text("blocked by")
        expect(self.view.locator(".loopnb-cancel[aria-busy=true]")).to_have_count(0)
        self._page.evaluate(_WATCH_TEXT, ["now", "blocked by In[", "keydown"])
        self._lab.start(_BLOCK)
        named_ms = self._seen_ms()
        expect(header).to_contain_text(", line 1: time.sleep")
        ack_ms: float = self._page.evaluate(_CLICK_CANCEL, "noted")
        self._gate.touch()
        self._lab.wait(_BLOCK)
        self._gate.unlink()
        return named_ms, ack_ms

    def restart(self) -> float:
        """Restart the kernel, and return the milliseconds until the view says so."""
        self._page.evaluate(_WATCH_TEXT, ["end", "before its restart at", "click"])
        self._lab.restart_kernel()
        return self._seen_ms()

    def shut_down(self) -> float:
        """Shut the kernel down, and return the milliseconds until the view says so."""
        self._page.evaluate(_WATCH_TEXT, ["end", "was shut down at", "shutdown"])
        self._page.evaluate(_SHUT_DOWN)
        return self._seen_ms()

    def _seen_ms(self) -> float:
        taken_ms: float = self._page.evaluate("window.seen")
        return taken_ms


def _measure(stage: _Stage, rounds: int, say: Callable[[str], None]) -> Findings:
    hidden: list[Phase] = []
    shown: dict[str, list[Phase]] = {"grouped": [], "each task a row": []}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        stage.show(False)
        hidden.append(stage.watch(_WINDOW_S))
        stage.show(True)
        for name, phases in shown.items():
            stage.choose(grouped=name == "grouped")
            phases.append(stage.watch(_WINDOW_S))
    say("scrolling")
    scrolled_copy = stage.watch_copy(scrolled=37)
    scrolled = stage.watch(_WINDOW_S, scrolled=37)
    stage.view.locator(".loopnb-scroll").evaluate("scroll => { scroll.scrollTop = 0; }")
    say("clicks")
    stage.add_victims()
    cancel_ms = [stage.click_cancel() for _ in range(2 * rounds)]
    named_ms, ack_ms = zip(*(stage.click_while_blocked() for _ in range(5)), strict=True)
    say("nothing changes")
    stage.run(_STOP)
    stage.choose(grouped=True)
    quiet = stage.watch(_QUIET_S, settle_s=_CALM_S)
    say("restart and Shut Down")
    restart_ms = stage.restart()
    stage.begin()
    shutdown_ms = stage.shut_down()
    return Findings(
        hidden=hidden,
        shown=shown,
        scrolled=scrolled,
        scrolled_copy=scrolled_copy,
        cancel_ms=cancel_ms,
        named_ms=list(named_ms),
        ack_ms=list(ack_ms),
        quiet=quiet,
        restart_ms=restart_ms,
        shutdown_ms=shutdown_ms,
    )


@contextmanager
def _staged() -> Iterator[_Stage]:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = LabServer(Path(folder))
        try:
            server.wait_ready()
            server.set_theme("light")
            chrome = playwright.chromium.launch(executable_path=find_chromium(), args=list(OPTIONS))
            context = chrome.new_context(viewport={"width": 1200, "height": 900})
            wire.count_in(context)
            notes, gate = Path(folder) / "notes", Path(folder) / "gate"
            cells = [
                cell.replace("NOTES", notes.as_posix()).replace("GATE", gate.as_posix()) for cell in _CELLS
            ]
            yield _Stage(LabPage(server, context.new_page(), server.add("bench.ipynb", cells)), notes, gate)
            chrome.close()
        finally:
            server.stop_kernels()
            server.close()


def measure(rounds: int, say: Callable[[str], None]) -> tuple[list[list[str]], str]:
    """Measure for some minutes. Return the table, and a line on the load alone.

    Args:
        rounds: How often the view is hidden and shown.
        say: Is told what is being done.
    """
    with _staged() as stage:
        found = _measure(stage, rounds, say)
    say("")
    head = ["10,000 tasks, 1,000 changes a second", "measured", "required", ""]
    return [head, *(figure.cells() for figure in figures(found))], own(found)

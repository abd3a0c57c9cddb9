"""Keep what the views show up to date, look by look, and send each view what has changed for it.

A look goes in slices of a few milliseconds, so that the loop turns in between. Its cost grows with what has
changed since the last one. The model (`model.py`) decides when to look, and sends.

The loop's thread, unless it says otherwise. Nothing here keeps a task of the user's alive.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from loopnb import trees
from loopnb._cpython import thread_time
from loopnb.records import Standstill
from loopnb.tracking import graph
from loopnb.tracking.cancelled import Cancellers
from loopnb.tracking.chains import LOCKS, kind_at_once
from loopnb.tracking.details import detail_of
from loopnb.tracking.slicing import SlicePace
from loopnb.widgets import details, head, protocol, timeline
from loopnb.widgets.cancels import Cancels
from loopnb.widgets.ended import Ended
from loopnb.widgets.printed import Printed, kernel_streams
from loopnb.widgets.table import Selection, Tasks, cell_number, group_key, group_row, task_row

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Set

    from loopnb.records import AwaitGraph, Block, Finding, LoopState, Pace, TaskRecord
    from loopnb.tracking.listing import Follower
    from loopnb.tracking.tracker import Tracker
    from loopnb.widgets.protocol import Message, Query, Shared, Timeline, Window
    from loopnb.widgets.table import Group

BEAT_S = 2.0
"""Figures that always change, such as the lag, are sent this often."""
_AT_ONCE = 64
"""How many tasks are taken in before the clock is asked again. Each takes some microseconds."""
_ENDED_EVERY_S = 1.0
_HELD_SHARE = 0.0005
"""Seconds between two looks at the history, and the share of the time spent on ended tasks that it lacks."""
_DOCTOR_EVERY_S = 10.0
_DOCTOR_SHARE = 0.002
"""Seconds between two questions to the doctor, and the largest share of the time that they may take."""
_WORDS_AT_ONCE = 8
"""One look finds out for so many rows what exactly they wait for. Each takes 0.1 ms."""
_MOST_LINES = 1_000
"""For so many places where tasks wait, the text of the user's line is kept."""
_GRAPH_EVERY_S = 2.0
_GRAPH_SHARE = 0.02
"""Seconds between two await graphs while somebody looks at one, and their largest share of the time."""
_TIMELINE_EVERY_S = 1.0
_MANY = 500
"""With more live tasks than this, the widget looks for no holders of locks, and does not ask the doctor."""


class Watched(Protocol):
    """Knows who blocks the loop, how late it is, and who keeps it busy. Any thread."""

    @property
    def is_on(self) -> bool:
        """True unless nothing is measured."""

    def pace(self) -> Pace:
        """Return how fast the loop turns."""

    def worst_lags(self) -> list[float]:
        """Return the worst lag of each of the last 60 seconds, in seconds."""

    def busy_shares(self) -> dict[int, float]:
        """Return the share of the loop's time that each task takes, by number."""

    def blocks(self) -> list[Block]:
        """Return the last blocks, oldest first."""

    def watch_blocks(self, fn: Callable[[Block | Standstill | None], object]) -> None:
        """Call *fn* with what keeps the loop from turning, in another thread, and with None at its end."""

    def unwatch_blocks(self, fn: Callable[[Block | Standstill | None], object]) -> None:
        """Call *fn* no more."""


class Source(Protocol):
    """What a widget shows: a session."""

    @property
    def epoch(self) -> str:
        """Names the session."""

    @property
    def tracker(self) -> Tracker:
        """Knows the tasks."""

    @property
    def watch(self) -> Watched:
        """Watches the loop."""

    def loop_state(self) -> LoopState:
        """Return the loop's state, at once."""

    def cell_since(self) -> float | None:
        """Return when the cell that executes began, in monotonic seconds."""

    @property
    def cells_ended(self) -> int:
        """How many cells have ended."""

    def findings(self) -> list[Finding]:
        """Return what the doctor knows, worst first. It may take some milliseconds."""


class Viewer:
    """One view, and what it was sent.

    Args:
        view: Its id.
        query: What it shows.

    Attributes:
        view, query: As given, until it asks for something else.
        window: The rows that it has; None if it needs all.
        detail: The number of the task whose details it shows, or None.
        tree: The kind of tree that it shows, or None.
        timeline: True while it shows the timeline.
        trace: The id of its request for the timeline as a file; None if there is none.
        sent_detail, sent_tree, sent_timeline: What it has of these; None if it needs all.
        tree_of: The graph from which `sent_tree` was made.
        ended_version: The version of the ended tasks that `window` shows, if it shows such.
        known: Facts about the task whose details are shown that are asked for only once: its number, its
            parents, and its outcome if it has ended.
    """

    def __init__(self, view: str, query: Query) -> None:
        self.view = view
        self.query = query
        self.window: Window | None = None
        self.detail: int | None = None
        self.tree: str | None = None
        self.timeline = False
        self.trace: str | None = None
        self.sent_detail: Message | None = None
        self.sent_tree: Message | None = None
        self.sent_timeline: Timeline | None = None
        self.tree_of: AwaitGraph | None = None
        self.ended_version = -1
        self.known: tuple[int, list[str], dict[str, str] | None] | None = None

    def ask_rows(self, query: Query) -> None:
        """Show what *query* finds from now on."""
        self.query = query

    def has_ended(self, query: Query, version: int) -> bool:
        """Return True if it shows what *query* finds among the ended tasks of that version."""
        if self.window is None or self.ended_version != version:
            return False
        return bool(self.window["query"] == query.as_json())

    def ask_detail(self, number: int | None) -> None:
        """Show the details of that task from now on, or none."""
        self.detail, self.sent_detail, self.known = number, None, None

    def ask_tree(self, kind: str | None) -> None:
        """Show that kind of tree from now on, or none."""
        self.tree, self.sent_tree, self.tree_of = kind, None, None

    def ask_timeline(self, shown: bool) -> None:
        """Show the timeline from now on, or no more."""
        self.timeline, self.sent_timeline = shown, None

    def ask_trace(self, request_id: str) -> None:
        """Get the timeline as a file with the next look."""
        self.trace = request_id

    def forget_sent(self) -> None:
        """Note that the view has lost what it was sent, and needs all."""
        self.window = self.sent_detail = self.sent_tree = self.sent_timeline = self.tree_of = None


class Monitor:
    """The picture of one session that the views of a widget share.

    Args:
        source: The session.
        send: Sends a message to all views.
        clock: Monotonic seconds.

    Attributes:
        shared: The header, as the views have it. Another thread may read it: it is replaced, never changed.
        viewers: The views that are visible, by id.
        tasks: The live tasks.
        cancels: Asks tasks to end.
        ended: The tasks that have ended.
        has_changed: True if the last look has found a change.
        sent_bytes: How many bytes were sent since `look` was last called.
        rare_s: CPU seconds that rare work has taken since then. Such work keeps to a pace of its own.
    """

    def __init__(self, source: Source, send: Callable[[Message], None], clock: Callable[[], float]) -> None:
        self._source = source
        self._tracker = source.tracker
        self._watch = source.watch
        self._send_message = send
        self._clock = clock
        self._follower: Follower | None = None
        self._cancellers: Cancellers | None = None
        self._printed = Printed(self._tracker.loop, kernel_streams)
        self._under_way: Iterator[None] = iter(())
        self._selections: dict[Query, Selection] = {}
        self._kept_up: list[Selection] = []  # the same, and one that does not have all tasks yet
        self._busy: dict[int, float] = {}
        self._words: dict[int, tuple[TaskRecord, str]] = {}
        self._lines: dict[str, str] = {}  # the user's line of all tasks that wait at one place
        self._doing: head.Doing | None = None
        self._doing_since: float | None = None
        self._interruptions, self._blocks_ended = (0, 0), 0  # cells and blocks that had ended
        self._has_rested = True  # since the last look, nobody has looked on
        self._lag: protocol.Lag | None = None
        self._findings: list[Finding] = []
        self._figures_at = self._doctor_at = self._ended_at = self._held_due = float("-inf")
        self._requests: dict[str, _Cancelling] = {}
        self._graph: AwaitGraph | None = None
        self._graph_at = self._graph_due = self._timeline_due = float("-inf")
        self._history = timeline.History()
        self.viewers: dict[str, Viewer] = {}
        self.tasks = Tasks()
        self.cancels = Cancels()
        self.ended = Ended(self._tracker)
        self.has_changed = False
        self._has_ended = False  # a task has ended since the look began
        self.sent_bytes, self.rare_s = 0, 0.0
        self.shared: Shared = {
            "epoch": source.epoch,
            "seq": 0,
            "clock_s": clock(),
            "taken_at": time.time(),
            "head": self._head(source.loop_state()),
            "block": None,
        }

    # -- coming and going -------------------------------------------------------------------------

    def rest(self) -> None:
        """Forget what takes memory or time: nobody looks. The next look begins anew."""
        self._under_way = iter(())
        self._has_rested = True
        if self._follower is not None:
            self._follower.close()
            self._follower = None
        self.stop_listening()
        self._cancellers = None
        self.viewers.clear()
        self._selections.clear()
        self._kept_up.clear()
        self._words.clear()
        self._lines.clear()
        self.tasks = Tasks()
        self.ended = Ended(self._tracker)
        self._ended_at = self._held_due = float("-inf")
        self._requests.clear()
        self._graph = None
        self._history = timeline.History()

    def stop_listening(self) -> None:
        """Take off what the widget has put around the user's output. Any thread."""
        self._printed.end()
        cancellers = self._cancellers
        if cancellers is not None:
            cancellers.close()

    def look_at_once(self) -> None:
        """Make a whole look in one step, and end the one that is under way."""
        for steps in (self._under_way, self._look(SlicePace(is_unlimited=True))):
            for _ in steps:
                pass

    def look(self) -> Iterator[None]:
        """Bring everything up to date and send it, in slices. Go on with one look before the next."""
        self.sent_bytes, self.rare_s = 0, 0.0
        self._under_way = self._look(SlicePace())
        return self._under_way

    def _look(self, pace: SlicePace) -> Iterator[None]:
        self.has_changed = self._has_ended = False
        follower = self._follow()
        for is_over in self._tracker.listing.parts(pace, exact=pace.is_unlimited):
            for _ in self._take_changes(follower):
                if pace.is_over():
                    yield
                    pace.begin()
            if is_over:
                yield
        for steps in (self._take_changes(follower), self._take_ended()):
            for _ in steps:
                if pace.is_over():
                    yield
                    pace.begin()
        for step in (self._look_at_figures, self._send_head, self._answer_requests):
            if pace.is_over():
                yield
                pace.begin()
            step()
        for steps in (*map(self._show, self.viewers.values()), self._look_closer()):
            for _ in steps:
                if pace.is_over():
                    yield
                    pace.begin()

    def _follow(self) -> Follower:
        """Return the follower that tells what changes. The first time, everything is new."""
        if self._follower is None:
            self._follower = self._tracker.listing.follow()
            self._cancellers = Cancellers(self._tracker, self.cancels.note)
        return self._follower

    def _take_changes(self, follower: Follower) -> Iterator[None]:
        """Take in what has changed since this was last done."""
        now = self._clock()
        delta = follower.take()
        refs = follower.take_ended()
        self.has_changed = self.has_changed or bool(delta)
        for count, record in enumerate(delta.changed.values(), 1):
            self._put(record, now)
            if not count % _AT_ONCE:
                yield
        users = set()
        for count, number in enumerate(delta.gone, 1):
            old = self.tasks.drop(number)
            self.cancels.forget(number)
            self._words.pop(number, None)
            if old is not None:
                for selection in self._kept_up:
                    selection.drop(number)
            if old is None or not old.is_kernel:
                users.add(number)
                self.ended.note(number, now)
                if old is not None:
                    self._history.add(old, now)
            if not count % _AT_ONCE:
                yield
        self.ended.hold({number: task_ref for number, task_ref in refs.items() if number in users})
        self._has_ended = self._has_ended or bool(refs or users)

    def _take_ended(self) -> Iterator[None]:
        """Bring the ended tasks up to date, and the order of all rows."""
        now = self._clock()
        if now >= self._held_due:
            began = thread_time()
            self.ended.find_held()
            cost_s = thread_time() - began
            self.rare_s += cost_s
            self._held_due = now + max(_ENDED_EVERY_S, cost_s / _HELD_SHARE)
            yield
        if now - self._ended_at >= _ENDED_EVERY_S or self._has_ended:
            self._ended_at = now
            yield from self.ended.look(now)
        for selection in self._selections.values():
            selection.settle()

    def _put(self, record: TaskRecord, now: float) -> None:
        number = record.number
        asked = self.cancels.look_at(record, self._tracker.listing.task(number), now)
        is_new = self.tasks.put(record, asked)
        for selection in self._kept_up:
            if is_new or not selection.is_fixed:
                selection.put(number)

    def cancel(self, request_id: str, numbers: Iterable[int], what: str) -> Message:
        """Ask these tasks to end, and return the first answer. The last follows when they have, or refused.

        Args:
            request_id: The id of the request.
            numbers: The numbers of the tasks.
            what: What to say if none of them lives.
        """
        records = self.end_tasks(numbers)
        if not records:
            return protocol.ack(request_id, ok=False, text=what)
        request = _Cancelling([record.number for record in records], _name_of(records))
        if not self.viewers:
            return protocol.ack(request_id, ok=True, text=f"cancelled {request.name}")
        self._requests[request_id] = request
        return protocol.ack(request_id, ok=True, text=f"cancelling {request.name}", final=False)

    def _answer_requests(self) -> None:
        """Send the last answer to each request whose tasks have all ended or refused."""
        for request_id, request in list(self._requests.items()):
            live = {number: self.tasks.get(number) for number in request.numbers}
            refused = [task for task in live.values() if task is not None and "refused" in task.note]
            if len(refused) == sum(task is not None for task in live.values()):
                del self._requests[request_id]
                states = [
                    self.ended.state_of(number, "cancelled") for number, task in live.items() if task is None
                ]
                text = request.outcome(states)
                self._send({**protocol.ack(request_id, ok=not refused, text=text)})

    def end_tasks(self, numbers: Iterable[int]) -> list[TaskRecord]:
        """Ask these tasks to end. Return the records of those that were alive."""
        now, ended = self._clock(), []
        known: set[int] = set()
        for number in numbers:
            task = self._tracker.listing.task(number)
            record = self._tracker.listing.records.get(number)
            if task is None or record is None or record.is_kernel:
                continue
            self.cancels.end(number, task, now, known)
            self._tracker.listing.outdate(number)
            ended.append(record)
            if number in self.tasks:
                self._put(record, now)
        for selection in self._selections.values():
            selection.settle()
        return ended

    # -- the header -------------------------------------------------------------------------------

    def _look_at_figures(self) -> None:
        """Refresh, every two seconds, what changes all the time, and ask the doctor now and then."""
        now = self._clock()
        if now - self._figures_at < BEAT_S:
            return
        self._figures_at = now
        if self._watch.is_on:
            self._lag = head.lag_of(self._watch.pace().recent, self._watch.worst_lags())
            before = self._busy.copy()
            self._busy.clear()
            self._busy.update(self._watch.busy_shares())
            for selection in self._selections.values():
                selection.look_at_busy(before.keys() | self._busy.keys())
                selection.settle()
        if now >= self._doctor_at and len(self.tasks) <= _MANY:
            began = thread_time()
            self._findings = self._source.findings()
            cost_s = thread_time() - began
            self.rare_s += cost_s
            self._doctor_at = now + max(_DOCTOR_EVERY_S, cost_s / _DOCTOR_SHARE)

    def _send_head(self) -> None:
        """Send what has changed in the header, or a beat if nothing has for some time."""
        before, state = self.shared, self._source.loop_state()
        after: Shared = {
            **before,
            "seq": before["seq"] + 1,
            "clock_s": self._clock(),
            "taken_at": time.time(),
            "head": self._head(state),
        }
        if before["head"]["cell"] not in (None, after["head"]["cell"]):
            self._held_due = after["clock_s"]  # a cell has ended: the next look finds what has ended in it
        message = protocol.head_message(before, after)
        if message is not None:
            self.has_changed = self.has_changed or not message["head"].keys() <= {"lag"}
            self.shared = after
            self._send(message)
        elif after["clock_s"] - before["clock_s"] >= BEAT_S:
            self.shared = {**after, "seq": before["seq"]}
            self._send(protocol.beat(self.shared))

    def _head(self, state: LoopState) -> protocol.Head:
        doing = head.doing(state, self.tasks.states)
        # Between two looks that find the loop idle, a cell may have run, or something has blocked.
        interruptions = self._source.cells_ended, self._blocks_ended
        if doing != self._doing or interruptions != self._interruptions:
            self._doing, self._interruptions = doing, interruptions
            self._doing_since = None if self._has_rested else self._clock()
        self._has_rested = False
        since = self._source.cell_since() if state.cell is not None else self._doing_since
        return head.head_of(
            state,
            self.tasks,
            since=since,
            ended=self.ended.count,
            lag=self._lag,
            findings=self._findings,
        )

    def block(self, block: Block | Standstill | None) -> Message:
        """Return the message that says what blocks the loop, or why else it stands still. Any thread."""
        self._blocks_ended += block is None
        shared, now = self.shared, self._clock()
        if isinstance(block, Standstill):
            since = self._source.cell_since() or now - block.lasted_s
            found = head.standstill_of(self._source.loop_state(), since)
            return protocol.block_message(shared, found, now, time.time())
        group, record = None, None
        if block is not None and block.task is not None:
            record = self._tracker.listing.records.get(block.task)
        if record is not None:
            group = _group_of(record)
        found = None if block is None else head.block_of(block, now, group)
        return protocol.block_message(shared, found, now, time.time())

    # -- one view ---------------------------------------------------------------------------------

    def show_all(self, viewer: Viewer) -> None:
        """Send a view the header now, and all its rows soon, whatever it has."""
        self._send_head()
        self._printed.begin()
        self.viewers[viewer.view] = viewer
        viewer.forget_sent()
        self._send(protocol.shared_message(self.shared))

    def show_rows(self, viewer: Viewer) -> bool:
        """Send a view the rows that it has asked for, if that needs no look. Returns False if it does."""
        if viewer.query.tab == "live" and viewer.query.selection not in self._selections:
            return False
        if viewer.query.tab == "finished" and not self.ended.has_all_records:
            return False
        if self._follower is None:
            return False
        for _ in self._show(viewer):
            pass
        return True

    def _show(self, viewer: Viewer) -> Iterator[None]:
        query = viewer.query
        ended_groups: Set[str] = frozenset()
        if query.tab == "finished":
            version = self.ended.version
            if viewer.has_ended(query, version):
                return
            for count, _record in enumerate(self.ended.records()):
                if not count % _AT_ONCE:
                    yield
            if viewer.query is not query:
                return  # the user has asked for something else, and has got it
            window = self._finished_window(query)
            viewer.ended_version = version
        else:
            selection = self._selections.get(query.selection)
            if selection is None:
                selection = yield from self._select(query)
                self._selections[query.selection] = selection
                self._forget_unused()
                if viewer.query is not query:
                    return
            window, ended_groups = self._live_window(query, selection), selection.ended_groups
        viewer.window, messages = protocol.window_messages(viewer.window, window)
        for message in messages:
            ended = self._ended_among(message["gone"], ended_groups)
            self._send_to(viewer, {**message, "ended": ended} if ended else message)

    def _select(self, query: Query) -> Generator[None, None, Selection]:
        """Return the rows that *query* finds. Meanwhile tasks may change and end."""
        selection = Selection(query.selection, self.tasks, self._busy)
        self._kept_up.append(selection)
        for count, number in enumerate(list(self.tasks.records), 1):
            if number in self.tasks:
                selection.put(number)
            if not count % _AT_ONCE:
                yield
        selection.settle()
        return selection

    def _ended_among(self, keys: list[str], ended_groups: Set[str]) -> dict[str, str]:
        """Return how tasks and groups have ended whose rows are gone; not those that are out of sight."""
        groups = dict.fromkeys(ended_groups & set(keys), "ended")
        numbers = {key: int(key[1:]) for key in keys if key[0] == "t"}
        return groups | {
            key: self.ended.state_of(number) for key, number in numbers.items() if number not in self.tasks
        }

    def _send_to(self, viewer: Viewer, message: Message) -> None:
        self._send({**message, "epoch": self.shared["epoch"], "view": viewer.view})

    def _forget_unused(self) -> None:
        used = {viewer.query.selection for viewer in self.viewers.values()}
        self._selections = {
            query: selection for query, selection in self._selections.items() if query in used
        }
        self._kept_up = list(self._selections.values())

    def is_cheap(self, query: Query) -> bool:
        """Return True if `window_of` takes little time, because a view shows these rows or there are few."""
        return query.selection in self._selections or len(self.tasks) <= _MANY

    def window_of(self, query: Query) -> Window:
        """Return the rows that *query* finds among the live tasks, as of the last look. In one step."""
        selection = self._selections.get(query.selection)
        if selection is None:
            selection = Selection(query.selection, self.tasks, self._busy)
            for number in self.tasks.records:
                selection.put(number)
        return self._live_window(query, selection)

    def _live_window(self, query: Query, selection: Selection) -> Window:
        selection.settle()
        total, found = selection.window(query)
        records = self.tasks.records
        rows = {}
        budget = [_WORDS_AT_ONCE]
        for key, depth in found:
            if key[0] == "t":
                record = records[int(key[1:])]
                words = self._words_of(record, budget)
                busy, line = self._busy_of(record.number), self._line_of(record)
                rows[key] = task_row(self.tasks.shown(record), depth, busy, words, line)
            else:
                group = selection.groups[key]
                busy = sum(self._busy.get(number, 0.0) for number in self._busy.keys() & group.numbers)
                rows[key] = group_row(
                    group,
                    records,
                    is_open=key in query.open,
                    busy=round(busy, 3) if self._watch.is_on else None,
                    waits_for=self._words_of_group(group, budget),
                    line=self._line_of(records[group.oldest]),
                )
        return {
            "query": query.as_json(),
            "wseq": 0,
            "total": total,
            "offset": query.offset,
            "keys": list(rows),
            "rows": rows,
        }

    def _busy_of(self, number: int) -> float | None:
        return round(self._busy.get(number, 0.0), 3) if self._watch.is_on else None

    def _words_of(self, record: TaskRecord, budget: list[int]) -> str:
        """Return what a task waits for, as exactly as *budget*, the closer looks that are left, allows."""
        known = self._words.get(record.number)
        if known is not None and known[0] is record:
            return known[1]
        live = self._tracker.listing.task(record.number) if budget[0] > 0 else None
        if live is None or record.state != "waiting":
            return record.waits_for
        budget[0] -= 1
        is_lock = kind_at_once(live, self._tracker.codes) in LOCKS
        text = record.waits_for
        if not is_lock or len(self.tasks) <= _MANY:
            found = detail_of(self._tracker, live)
            text = found.text or text
            if len(self._lines) >= _MOST_LINES:
                self._lines.clear()
            self._lines[_group_of(record)] = found.line
        self._words[record.number] = (record, text)
        return text

    def _line_of(self, record: TaskRecord) -> str:
        """Return the user's line where a task waits; "" if no task that waits there was looked at closely."""
        return self._lines.get(_group_of(record), "")

    def _words_of_group(self, group: Group, budget: list[int]) -> str | None:
        """Return what exactly a group waits for, if its oldest and its newest task wait for the same."""
        records = self.tasks.records
        first, last = (self._words_of(records[number], budget) for number in (group.oldest, group.newest))
        return first if first == last else None

    def _finished_window(self, query: Query) -> Window:
        found = self.ended.select(query, self.ended.records())
        shown = found[query.offset : query.offset + query.limit]
        rows = {row["key"]: row for row in map(self.ended.row, shown)}
        return {
            "query": query.as_json(),
            "wseq": 0,
            "total": len(found),
            "offset": query.offset,
            "keys": list(rows),
            "rows": rows,
        }

    def numbers_in(self, view: str, group: str) -> list[int]:
        """Return the numbers of the tasks behind the row of a group in a view."""
        viewer = self.viewers.get(view)
        selection = None if viewer is None else self._selections.get(viewer.query.selection)
        return [] if selection is None else selection.numbers_in(group)

    def leftovers(self) -> list[int]:
        """Return the numbers of the user's tasks that are left over."""
        return [
            number for number, record in self.tasks.records.items() if record.note and not record.is_kernel
        ]

    # -- details, trees, timeline -----------------------------------------------------------------

    def _look_closer(self) -> Iterator[None]:
        """Send what has changed to the views that show details, a tree or a timeline."""
        now = self._clock()
        viewers = list(self.viewers.values())
        if now >= self._graph_due and any(viewer.detail or viewer.tree for viewer in viewers):
            began = time.perf_counter()
            self._graph = yield from graph.slices(self._tracker)
            self._graph_at = self._clock()
            cost_s = time.perf_counter() - began
            self._graph_due = now + max(_GRAPH_EVERY_S, cost_s / _GRAPH_SHARE)
        for viewer in viewers:
            if viewer.detail is not None:
                self._show_detail(viewer, viewer.detail)
                yield
            if viewer.tree is not None:
                yield from self._show_tree(viewer, viewer.tree)
            if viewer.trace is not None:
                request_id, viewer.trace = viewer.trace, None
                yield from self._send_trace(viewer, request_id)
        if now >= self._timeline_due or any(
            viewer.timeline and viewer.sent_timeline is None for viewer in viewers
        ):
            self._timeline_due = now + _TIMELINE_EVERY_S
            for viewer in viewers:
                if viewer.timeline:
                    self._show_timeline(viewer)
                    yield

    def _show_detail(self, viewer: Viewer, number: int) -> None:
        found = self._detail(viewer, number)
        if found is not None and protocol.size_of(found) > protocol.MOST_BYTES - 1_000:
            # The texts are full of characters of four bytes.
            found |= {"chain": found["chain"][-5:], "parents": [], "traceback": found["traceback"][-2_000:]}
            found["output"] = found["output"][-5:]
        message = {"op": "detail", "number": number, "detail": found}
        if message != viewer.sent_detail:
            viewer.sent_detail = message
            self._send_to(viewer, message)

    def _detail(self, viewer: Viewer, number: int) -> dict[str, Any] | None:
        live = self.tasks.get(number)
        task = self._tracker.listing.task(number)
        ended = self.ended.of(number) if live is None or task is None else None
        if live is not None and task is not None:
            record = live.record
            words = self._words_of(record, [1])
            row = task_row(live, 0, self._busy_of(number), words, self._line_of(record))
            chain = details.chain_lines(self._tracker, task, many=len(self.tasks) > _MANY)
        elif ended is not None:
            record = self._tracker.record_ended(ended)
            row, chain = self.ended.row(record), []
        else:
            return None
        known = viewer.known
        if known is None or known[0] != number or (ended is not None and known[2] is None):
            outcome = None
            if ended is not None:
                outcome = details.outcome(self.ended.task(number), ended, self._tracker.describe)
            known = viewer.known = (number, self._tracker.parents_of(record), outcome)
        return details.detail(
            row,
            record,
            chain=chain,
            awaited=details.awaited_by(self._graph, number),
            parents=known[1],
            blocks=self._watch.blocks(),
            output=self._printed.lines(number),
            outcome=known[2] or {"result": "", "traceback": ""},
            cancelled_by=protocol.cut(self.cancels.who(number)),
        )

    def _show_tree(self, viewer: Viewer, kind: str) -> Iterator[None]:
        graph, now = self._graph, self._graph_at
        if graph is None or viewer.tree_of is graph:
            return
        viewer.tree_of = graph
        below: Mapping[int, tuple[int, ...]] = graph.awaits
        if kind == "spawned":
            below = yield from trees.spawned_by(graph.records)
        roots = yield from trees.roots_of(graph.records, below, lambda _task: True)
        tree = yield from trees.tree_of(graph.records, below, roots)
        shown = tree.branches[: trees.MOST_LINES]
        lines, left_out = protocol.fitting(
            {
                "depth": branch.depth,
                "text": protocol.cut(trees.line_text(branch, graph, now, {})),
                "numbers": list(branch.numbers[:3]),
                "count": len(branch.numbers),
                "is_cycle": kind == "awaits" and not graph.cyclic.isdisjoint(branch.numbers),
                "is_again": branch.is_again,
            }
            for branch in shown
        )
        more = left_out + len(tree.branches) - len(shown)
        message = {"op": "tree", "kind": kind, "lines": lines, "more": more}
        if message != viewer.sent_tree:
            viewer.sent_tree = message
            self._send_to(viewer, message)

    def _show_timeline(self, viewer: Viewer) -> None:
        now = self._clock()
        self._history.forget_before(now - timeline.SECONDS)
        blocks = timeline.blocks_of(self._watch.blocks(), now, time.time())
        after = timeline.timeline_of(self.tasks, self._history, blocks, now, self.ended.state_of)
        viewer.sent_timeline, messages = protocol.timeline_messages(viewer.sent_timeline, after)
        for message in messages:
            self._send_to(viewer, message)

    def _send_trace(self, viewer: Viewer, request_id: str) -> Iterator[None]:
        """Send a view the timeline as a file, piece by piece."""
        now = self._clock()
        self._history.forget_before(now - timeline.SECONDS)
        blocks = timeline.blocks_of(self._watch.blocks(), now, time.time())
        pieces = []
        for piece in protocol.in_pieces(
            timeline.trace_of(self.tasks, self._history, blocks, now, self.ended.state_of)
        ):
            pieces.append(piece)
            yield
        for part, piece in enumerate(pieces):
            message = {"op": "trace", "id": request_id, "part": part, "parts": len(pieces), "text": piece}
            self._send_to(viewer, message)
            yield

    def _send(self, message: Message) -> None:
        if self.viewers:
            self.sent_bytes += protocol.size_of(message)
            self._send_message(message)


class _Cancelling(NamedTuple):
    """A request to cancel that has not got its last answer.

    Attributes:
        numbers: The numbers of its tasks.
        name: What they are called in a sentence.
    """

    numbers: list[int]
    name: str

    def outcome(self, states: list[str]) -> str:
        """Return in words what became of the tasks, given how those that did not refuse have ended."""
        count, cancelled = len(self.numbers), states.count("cancelled")
        if count == 1:
            words = {"cancelled": "cancelled {}", "raised": "{} failed", "returned": "{} has ended"}
            return (
                words.get(states[0], "{} has ended").format(self.name)
                if states
                else (f"{self.name} refused to cancel")
            )
        refused = count - len(states)
        text = (
            f"cancelled {self.name}" if cancelled == count else f"{cancelled:,} of {count:,} tasks cancelled"
        )
        return f"{text}, {refused:,} refused" if refused else text


def _name_of(records: list[TaskRecord]) -> str:
    first = records[0]
    if len(records) == 1:
        return first.name or first.coro
    of = f" of {first.coro}" if all(record.coro == first.coro for record in records) else ""
    return f"{len(records):,} tasks{of}"


def _group_of(record: TaskRecord) -> str:
    return group_key(record.coro, cell_number(record.cell), record.waits_at)

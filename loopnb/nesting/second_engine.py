"""The second engine, nest-asyncio or a fork of it, and the choice of an engine.

nest-asyncio runs the loop *on top of* the waiting stack; `engine.py` says what that costs. We use it if
greenlet cannot be imported, or if the user asks for it. By itself the package cannot take its `apply()` back.
Here it can be taken back: we note each attribute that it changes (`patching.Difference`).
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import importlib
import importlib.util
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from loopnb import nesting
from loopnb.errors import NestingError
from loopnb.nesting import other_packages, patches, stack_switching
from loopnb.nesting._cpython import (
    current_policy,
    is_stopping,
    pad_queue,
    ready_queue,
    running_loop,
    set_stopping,
)
from loopnb.nesting.entry_points import run_nested
from loopnb.nesting.greenlets import why_missing
from loopnb.nesting.scope import engine_of, reentrant_loops
from loopnb.patching import Difference, Patch, PatchSet

if TYPE_CHECKING:
    from types import ModuleType

    from loopnb.nesting.engine import Foreground


# -- nest-asyncio --------------------------------------------------------------------------------


#: The modules that can be the second engine, the first choice first. From 3.12 on that is nest_asyncio2, a
#: fork. It knows the argument `loop_factory`, which `asyncio.run` takes there. ipykernel 7 prefers it, too.
_PACKAGES = (
    ("nest_asyncio", "nest_asyncio2") if sys.version_info < (3, 12) else ("nest_asyncio2", "nest_asyncio")
)


def package_name() -> str:
    """Return the name of a package that is there and works on the running Python. Any thread.

    nest-asyncio2 and anest-asyncio work. nest-asyncio works up to 3.11, and is no longer maintained: it does
    not know `loop_factory`, and it breaks `current_task()` on 3.14. reloop 0.1.0 does not work. A task that
    was made before `reloop.apply()`, such as the kernel's own, loses its step in a nested run and hangs.

    Returns:
        The name; if no such package is there, that of the first choice.
    """
    return next(filter(_works_here, _PACKAGES), _PACKAGES[0])


def _works_here(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # somebody has put a module without a spec in its place
        return True
    if spec is None:
        return False
    # anest-asyncio has the import name of nest-asyncio. It is a package; nest-asyncio is one module.
    is_nest_asyncio = name == "nest_asyncio" and spec.submodule_search_locations is None
    return not is_nest_asyncio or sys.version_info < (3, 12)


class ReentrantRun:
    """A nested run. Only the newest can be stopped, since it stands on top of the others. The loop's thread.

    Args:
        loop: The loop.
        future: What it waits for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, future: Any) -> None:
        self.future = future
        self._loop = loop
        self._was_ended = False
        self._was_stopping = is_stopping(loop)

    def begin(self) -> None:
        """Postpone a stop that is meant for a run further down until this run has ended."""
        set_stopping(self._loop, False)

    def end(self, _error: BaseException) -> None:
        """Stop the run after this pass.

        Where the run waits, the package raises the stock error of a stopped loop.
        """
        self._was_ended = True
        set_stopping(self._loop, True)

    def leave(self) -> None:
        """Pass on a stop that was meant for a run further down. The package would lose it."""
        set_stopping(self._loop, self._was_stopping or (is_stopping(self._loop) and not self._was_ended))


class Reentrant:
    """nest-asyncio on one loop, for as long as it is wanted. The loop's thread.

    Args:
        loop: An asyncio loop; uvloop's cannot be patched.

    Attributes:
        package: Name of the package that does the work.
        runs: The nested runs that are under way, the newest last.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.package = package_name()
        self.runs: list[ReentrantRun] = []
        self._loop = loop
        self._changes: Difference | None = None
        self._guard = PatchSet(
            Patch(loop, "run_until_complete", self._run_until_complete),
            # The package's own method ignores `stop()`, and bypasses the wrappers that guard the loop.
            Patch(loop, "run_forever", partial(_run_forever, loop)),
        )

    def install(self) -> None:
        """Apply the package, and note what it changes.

        Raises:
            ImportError: It is not installed.
            ValueError: It cannot patch this loop.
        """
        package = importlib.import_module(self.package)
        self._changes = Difference(partial(package.apply, self._loop), _owners(package, self._loop))
        self._changes.install()
        self._guard.install()
        reentrant_loops.add(self._loop)

    def remove(self) -> list[str]:
        """Take back what the package changed. Tasks that were made meanwhile stay Python tasks.

        Returns:
            The attributes that stay as they are, since somebody has changed them meanwhile.
        """
        reentrant_loops.discard(self._loop)
        self._guard.restore()
        changes, self._changes = self._changes, None
        if changes is None or changes.restore():
            return []
        return changes.kept

    def _run_until_complete(self, future: Any) -> Any:
        """Run nested, and leave the pass that is under way as many handles as it has counted.

        If the package was applied during a pass, that pass is the stock loop's. With fewer handles it would
        end the kernel, see `pad_queue`.
        """
        loop: Any = self._loop
        counted = len(ready_queue(loop)) if running_loop() is loop else 0
        run = ReentrantRun(loop, future)
        run.begin()
        self.runs.append(run)
        try:
            return type(loop).run_until_complete(loop, future)
        finally:
            self.runs.remove(run)
            run.leave()
            pad_queue(loop, counted)


def _owners(package: ModuleType, loop: asyncio.AbstractEventLoop) -> list[Any]:
    """Return everything whose attributes the package changes.

    The list follows the sources of nest-asyncio 1.6.0, nest-asyncio2 1.7.4 and anest-asyncio 2.0.0.
    """
    owners: list[Any] = [asyncio, asyncio.tasks, asyncio.futures, asyncio.events, package]
    owners += [kind for kind in type(loop).__mro__ if issubclass(kind, asyncio.base_events.BaseEventLoop)]
    owners.append(loop)
    policy = current_policy()
    if policy is not None:
        owners += [kind for kind in type(policy).__mro__ if kind is not object]
    tornado = sys.modules.get("tornado.concurrent")
    if tornado is not None:
        owners.append(tornado)
    return owners


def _run_forever(loop: Any) -> None:
    asyncio.base_events.BaseEventLoop.run_forever(loop)


# -- the choice ----------------------------------------------------------------------------------

EngineName = Literal["handoff", "nest-asyncio", "off", "stack-switching"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


#: What asyncio says when a loop is asked to run inside a running one.
REFUSALS = (
    "cannot be called from a running event loop",
    "This event loop is already running",
    "Cannot run the event loop while another loop is running",
)


def _is_refusal(text: str) -> bool:
    return any(refusal in text for refusal in REFUSALS)


class NestingChoice:
    """Chooses and switches the nesting engine of a loop, and knows why it was chosen. The loop's thread.

    Args:
        loop: The loop.
        who: The name under which nested runs are wanted, see `loopnb.nesting.apply`.
        foreground: Knows the stacks that a user is waiting for.

    Attributes:
        name: The engine that is on.
        reason: Why it was chosen, as a clause.
        cannot: The handoff engine does not work on this loop, or in this interpreter.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, who: str, foreground: Foreground) -> None:
        self.name: EngineName = "off"
        self.reason = "nothing was chosen yet"
        self.cannot = False
        self._loop = loop
        self._who = who
        self._foreground = foreground
        self._order: Literal["any", "lifo"] = "any"
        self._reentrant: Reentrant | None = None

    def start(self) -> None:
        """Choose the best engine that this loop and this interpreter allow. Without one, nesting is off."""
        if stack_switching.is_web_loop(self._loop):
            self._start_on_web_loop()
            return
        patches.guard_submitted(self._who)
        try:
            self._use_handoff()
            self.reason = "it is the default"
        except NestingError as error:
            self.reason, self.cannot = error.reason, True
        if self.name == "off" and why_missing is not None:
            self._fall_back()
        elif self.name == "off":
            nesting.apply_lazily(None, who=self._who)

    def stop(self) -> list[str]:
        """Switch nesting off. Leave asyncio as it was, unless somebody else wants nested runs.

        Returns:
            What could not be taken back, as sentences.
        """
        kept = self._switch_off()
        patches.unguard_submitted(self._who)
        return kept

    def _switch_off(self) -> list[str]:
        kept: list[str] = []
        if self._reentrant is not None:
            names = self._reentrant.remove()
            package, self._reentrant = self._reentrant.package, None
            if names:
                kept = [
                    f"{package} had changed {', '.join(names)}. Other code has changed it since, so it stays."
                ]
        nesting.remove(who=self._who)
        self.name = "off"
        return kept

    def switch(self, name: EngineName) -> list[str]:
        """Use engine *name* from now on.

        Returns:
            What the user should know about the previous engine, as sentences.

        Raises:
            NestingError: The engine cannot be used here. Or it is nest-asyncio, and stacks are parked. Or
                a run that nest-asyncio has nested is under way. If its package fails, nesting is off
                afterwards.
        """
        if name == self.name:
            return []
        if name in {"handoff", "nest-asyncio"} and stack_switching.is_web_loop(self._loop):
            doing = f"switch to {name}"
            raise stack_switching.only_loop(doing, "The engine 'stack-switching' needs no loop of Python's.")
        if name == "stack-switching" and not stack_switching.is_web_loop(self._loop):
            raise NestingError(
                "only the loop of JupyterLite can switch stacks",
                "The engine 'handoff' does the same here.",
                doing="switch to stack-switching",
            )
        engine = engine_of(self._loop)
        parked = len(engine.waits) if engine is not None else 0
        if name == "nest-asyncio" and parked:
            raise NestingError(
                f"{parked} stacks are parked, and nest-asyncio would stand on top of them",
                "Let them end, or cancel them ('%loopnb tasks' lists them as parked), and try again.",
                doing="switch to nest-asyncio",
            )
        self.check_can_leave(f"switch to {name}", f"%loopnb nesting {name}")
        said = self._switch_off()
        if name == "handoff":
            self._use_handoff()
        elif name == "nest-asyncio":
            self._use_reentrant()
        elif name == "stack-switching":
            self._use_stack_switching()
        elif parked:
            said.append(f"{parked} parked stacks still end in order; new nested runs are refused.")
        self.reason = "it was asked for"
        return said

    def check_can_leave(self, doing: str, command: str) -> None:
        """Raise NestingError if something runs nested that cannot end without the engine that is on.

        Args:
            doing: What the user wants to do, for the error.
            command: What to type for that.
        """
        if self.newest_reentrant() is not None:
            raise NestingError(
                "a nested run of nest-asyncio is under way, and cannot end without it",
                f"Let it end, or cancel its task. Then run '{command}' in a cell of its own.",
                doing=doing,
            )

    def run(self, task: asyncio.Task[Any]) -> Any:
        """Wait for *task* in a nested run, by the engine that is on, and return its result.

        Raises:
            NestingError: The loop cannot be entered again from here; `.reason` says why.
            RuntimeError: No engine is on.
        """
        if self.name == "stack-switching":
            return stack_switching.run(task)
        if self.name == "nest-asyncio":
            return self._loop.run_until_complete(task)
        return run_nested(self._loop, task)

    def refusal_elsewhere(self) -> NestingError:
        """Return the error for a nested run on the loop of a subshell, where nobody wants one. Any thread."""
        reason = f"nesting is off: {self.reason}"
        if self.name == "nest-asyncio":
            reason = "the engine nest-asyncio nests on the notebook's loop only, and this is another"
        thread = "`await asyncio.to_thread(loopnb.run, coro)`"
        remedy = f"Use {thread}."
        if not self.cannot:
            remedy = f"Run '%loopnb nesting handoff', which nests in subshells, too, or use {thread}."
        return NestingError(reason, remedy)

    def newest_reentrant(self) -> ReentrantRun | None:
        """Return the newest nested run of nest-asyncio, if there is one."""
        runs = self._reentrant.runs if self._reentrant is not None else []
        return runs[-1] if runs else None

    def set_order(self, *, lifo: bool) -> None:
        """From now on, let the newest wait end first, or each wait as soon as it is done.

        See `loopnb.nesting.apply`.
        """
        self._order = "lifo" if lifo else "any"
        if self.name == "handoff":
            nesting.apply(who=self._who, order=self._order)

    def explain(self, error: BaseException) -> str | None:
        """Return a note on *error* if asyncio has refused a nested run because nesting is off. Any thread."""
        if self.name != "off" or type(error) is not RuntimeError or not _is_refusal(str(error)):
            return None
        switch = "" if self.cannot else " '%loopnb nesting handoff' switches it on."
        return f"Nesting is off: {self.reason}.{switch}"

    def notes(self) -> list[str]:
        """Return notes for the status, as sentences. Any thread."""
        said = [
            f"{call.package}.apply(), called in {call.filename}, line {call.line}, did nothing: nesting "
            "was on."
            for call in other_packages.applied_by()
        ]
        before = other_packages.applied_before()
        if before == "reloop":
            said.append("reloop.apply() had run before loopnb; it is taken back until loopnb is unloaded.")
        elif before is not None and self._reentrant is None:
            said.append(f"{before}.apply() had run before loopnb: tasks are the slower Python ones.")
        return said

    def _use_handoff(self) -> None:
        nesting.apply(self._loop, who=self._who, order=self._order)
        nesting.apply(who=self._who, order=self._order)
        engine = engine_of(self._loop)
        if engine is not None:
            engine.set_foreground(self._foreground)
        self.name = "handoff"

    def _start_on_web_loop(self) -> None:
        self.cannot = True
        try:
            self._use_stack_switching()
            self.reason = "JavaScript turns this loop, and WebAssembly can switch stacks"
        except NestingError as error:
            self.reason = error.reason

    def _use_stack_switching(self) -> None:
        reason = stack_switching.why_not_here()
        if reason is not None:
            raise NestingError(reason, "Use `await`.", doing="switch to stack-switching")
        self.name = "stack-switching"

    def _use_reentrant(self) -> None:
        reentrant = Reentrant(self._loop)
        try:
            reentrant.install()
        except (ImportError, ValueError) as error:
            raise NestingError(
                f"{reentrant.package} cannot be used: {error}",
                "'%loopnb nesting handoff' switches back.",
                doing="switch to nest-asyncio",
            ) from error
        self._reentrant = reentrant
        self.name = "nest-asyncio"

    def _fall_back(self) -> None:
        try:
            self._use_reentrant()
            self.reason = f"greenlet cannot be imported: {why_missing}"
        except NestingError as error:
            self.reason = f"greenlet cannot be imported ({why_missing}), and {error.reason}"

"""The settings. `%config LoopNB` lists them, `%config LoopNB.on_rerun = "cancel"` changes one."""

from __future__ import annotations

from typing import Any

from traitlets import Bool, Enum, Float, Integer, TraitError, validate
from traitlets.config.configurable import Configurable


class LoopNB(Configurable):
    """The settings of one session. A change takes effect from then on."""

    on_rerun = Enum(
        ("tell", "keep", "cancel"),
        default_value="tell",
        help="""
        What happens to tasks that a cell has left running when you run the cell again.

        "tell" lets them live on. When the cell ends, one line in it names those that still live, once for
        each cell. "keep" lets them live on and says nothing; `%loopnb tasks` shows them as left over.
        "cancel" cancels them first and waits until they have ended. That wait is a nested run, so with
        nesting off the cell does not wait. loopnb knows a cell by the id that the front end gives it.
        `%%aloop -b` has its own rule: the new run of a cell replaces the earlier one.

        Default "tell".
        """,
    ).tag(config=True)
    on_deadlock = Enum(
        ("tell", "keep"),
        default_value="tell",
        help="""
        What happens when a cell waits for something that can never come: for a lock that its own code
        holds, for tasks that wait for each other, or for a queue that nothing can fill.

        "tell" writes one line into the cell, about two seconds later. "keep" says nothing; `%loopnb` and
        `%loopnb doctor` name it all the same. In neither case is anything cancelled.

        Default "tell".
        """,
    ).tag(config=True)
    rerun_grace = Float(
        10.0,
        help="""
        Seconds to wait for tasks that `on_rerun = "cancel"` has cancelled. After that the cell names
        the tasks that have not ended, and runs all the same. If you interrupt the wait, the cell does
        not run.

        Default 10.0. 0 does not wait.
        """,
    ).tag(config=True)
    nesting_order = Enum(
        ("any", "lifo"),
        default_value="any",
        help="""
        The order in which nested runs return.

        "any" lets each run return as soon as what it waits for is done. "lifo" lets the newest run
        return first. Set "lifo" if several runs are on top of C++ code that insists on that order
        (pybind11); with "any" such code aborts the process. With "lifo" an older run takes at least as
        long as the newer ones, and two runs hang if the newer one waits for the older one. In
        scripts, call `loopnb.nesting.apply(order="lifo")`.

        Default "any".
        """,
    ).tag(config=True)
    report_after = Float(
        0.5,
        help="""
        Seconds from the end of a cell until its failed tasks are reported, if something still refers
        to them. A later cell may still await such a task, so loopnb reports none while a cell
        executes. Failed tasks that nothing refers to are reported at the end of their cell.

        Default 0.5. 0 reports as soon as no cell executes.
        """,
    ).tag(config=True)
    on_failure = Enum(
        ("report", "raise"),
        default_value="report",
        help="""
        What happens when a task fails and nobody awaits it.

        "report" writes a line into the cell that has spawned the task. "raise" also has the next cell
        fail with the error of the task, without running: papermill, `jupyter execute` and nbconvert then
        stop, with exit code 1. Each failure fails one cell. A cell that awaits a task to handle its error
        comes too late if the task has failed before that cell begins. No cell follows the last one: let that
        be `%loopnb wait`, which waits for all tasks and raises what failed.

        Default "report".
        """,
    ).tag(config=True)
    blocked_after = Float(
        0.5,
        help="""
        Seconds for which one step may keep the loop from turning before loopnb notes that it is blocked,
        and by whom. `%loopnb blocks` lists the blocks. A thread measures this, so it works while the
        loop is stuck.

        Default 0.5. 0 switches the watchdog off, thread and all: then nothing is measured, and `%loopnb
        lag` has no figures.
        """,
    ).tag(config=True)
    finished_kept = Integer(
        500,
        help="""
        Number of returned and cancelled tasks that loopnb keeps for `%loopnb tasks --finished`.

        Default 500. 0 keeps none.
        """,
    ).tag(config=True)
    failed_kept = Integer(
        100,
        help="""
        Number of failed tasks that loopnb keeps for `%loopnb tasks --finished` and `%loopnb where`,
        with their tracebacks. Each keeps the local variables of its frames alive.

        Default 100. 0 keeps none.
        """,
    ).tag(config=True)
    rows_shown = Integer(
        200,
        help="""
        Number of tasks that `%loopnb tasks` prints, and that the list of `loopnb.tasks()` shows. The list
        itself always has all of them.

        Default 200. 0 prints all.
        """,
    ).tag(config=True)
    progress = Bool(
        False,
        help="""
        Show how far a cell has come, in each cell that runs for more than a second: for how long it has run,
        how many of its tasks are done or have failed, and how fast that goes. One short line stays in the
        notebook. `%%aloop --progress` shows this for one cell. A terminal shows nothing.

        Default False.
        """,
    ).tag(config=True)
    shutdown_grace = Float(
        2.0,
        help="""
        Seconds to wait for tasks to end when the kernel is shut down or restarted. After that, loopnb
        waits as long again for async generators, clients and executor threads, all together. The log
        names what has not ended by then. At the end of a cell with `%%aloop --fresh`, the threads of its
        executor get as many seconds, too.

        Default 2.0. 0 does not wait. Jupyter kills a kernel 5 s after asking it to end.
        """,
    ).tag(config=True)

    def update_config(self, config: Any) -> None:
        """Set the values in *config*, as `%config` does.

        IPython writes a value into the shell's own config before the value is checked. If it is refused, we
        put the current value back there. Otherwise the next `%config` and every reload would fail on it.

        Raises:
            TraitError: A value was refused.
        """
        try:
            super().update_config(config)
        except TraitError:
            section = config[type(self).__name__]
            for name in filter(self.has_trait, list(section)):
                section[name] = getattr(self, name)
            raise

    @validate(
        "rerun_grace",
        "report_after",
        "blocked_after",
        "finished_kept",
        "failed_kept",
        "rows_shown",
        "shutdown_grace",
    )
    def _not_negative(self, proposal: dict[str, Any]) -> float:
        value: float = proposal["value"]
        if not value >= 0:
            raise TraitError(f"LoopNB.{proposal['trait'].name} takes 0 or more, not {value!r}.")
        return value

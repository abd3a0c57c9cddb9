"""What can be set: `%config LoopNB` lists it, `%config LoopNB.on_rerun = "cancel"` changes it."""

from __future__ import annotations

from typing import Any

from traitlets import Enum, Float, Integer, TraitError, validate
from traitlets.config.configurable import Configurable


class LoopNB(Configurable):
    """The settings of one session. A change holds from then on."""

    on_rerun = Enum(
        ("keep", "cancel"),
        default_value="keep",
        help="""
        What becomes of tasks that a cell has left running when it is run again.

        "keep" lets them live on; `%loopnb tasks` shows them as left over. "cancel" cancels them, and
        the cell runs when they have ended. That wait is a nested run: with nesting off there is none.
        A cell is known by the id that the front end gives it. Tasks of `%%aloop -b` have their own
        rule: the new run replaces the earlier one.

        Default "keep".
        """,
    ).tag(config=True)
    rerun_grace = Float(
        10.0,
        help="""
        Seconds that tasks cancelled by `on_rerun = "cancel"` have to end in before the cell runs.
        What has not ended by then is named in the cell, which runs all the same; interrupted
        meanwhile, it does not run.

        Default 10.0. 0 does not wait.
        """,
    ).tag(config=True)
    nesting_order = Enum(
        ("any", "lifo"),
        default_value="any",
        help="""
        The order in which nested runs return.

        "any" lets each return as soon as what it waits for is done. "lifo" lets the newest return
        first: where C++ code that insists on it (pybind11) is below several of them, anything else
        ends the process. An older one then takes as long as the newer ones, and two hang where the
        newer waits for the older. `loopnb.nesting.apply(order="lifo")` is the same for scripts.

        Default "any".
        """,
    ).tag(config=True)
    report_after = Float(
        0.5,
        help="""
        Seconds after the end of a cell until tasks that have failed, and that something still
        refers to, are reported there. A later cell may still await them: none is reported while a
        cell executes. What nothing refers to any more is reported at the end of its cell.

        Default 0.5. 0 reports as soon as no cell executes.
        """,
    ).tag(config=True)
    finished_kept = Integer(
        500,
        help="""
        Number of tasks that returned or were cancelled, and that `%loopnb tasks --finished` lists.

        Default 500. 0 keeps none.
        """,
    ).tag(config=True)
    failed_kept = Integer(
        100,
        help="""
        Number of failed tasks that `%loopnb tasks --finished` lists and whose traceback
        `%loopnb where` shows. Each keeps the local variables of its frames alive.

        Default 100. 0 keeps none.
        """,
    ).tag(config=True)
    rows_shown = Integer(
        200,
        help="""
        Number of tasks that `%loopnb tasks` prints. `loopnb.tasks()` always has them all.

        Default 200. 0 prints all.
        """,
    ).tag(config=True)
    shutdown_grace = Float(
        2.0,
        help="""
        Seconds that tasks have to end in when the kernel is shut down or restarted, and after them
        async generators, clients and executor threads together. What has not ended by then is
        named in the log. As long the executor threads of `%%aloop --fresh` have at the end of its
        cell.

        Default 2.0. 0 does not wait. Jupyter kills a kernel 5 s after it has asked it to end.
        """,
    ).tag(config=True)

    def update_config(self, config: Any) -> None:
        """Take new values, as `%config` does. What is refused is taken out of *config* again, too.

        IPython writes it into the shell's own, where the next `%config` and every reload would meet it.
        """
        try:
            super().update_config(config)
        except TraitError:
            section = config[type(self).__name__]
            for name in filter(self.has_trait, list(section)):
                section[name] = getattr(self, name)
            raise

    @validate("rerun_grace", "report_after", "finished_kept", "failed_kept", "rows_shown", "shutdown_grace")
    def _not_negative(self, proposal: dict[str, Any]) -> float:
        value: float = proposal["value"]
        if not value >= 0:
            raise TraitError(f"LoopNB.{proposal['trait'].name} takes 0 or more, and got {value!r}.")
        return value

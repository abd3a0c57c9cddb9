"""What tells whether unloading has left a trace, as the text of a cell."""

from __future__ import annotations

FINGERPRINT = """
import asyncio, gc, signal, sys, threading, warnings

def shells_loop():
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # a terminal
        from IPython.core.async_helpers import get_asyncio_loop
        return get_asyncio_loop()

def fingerprint():
    loop, shell = shells_loop(), get_ipython()
    own = {"kernel": shell.kernel} if hasattr(shell, "kernel") else {"prompt": shell.pt_app}
    owners = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "asyncio"}
    owners |= {f"{module.__name__}.{cls.__qualname__}": cls
               for module in list(owners.values()) for cls in vars(module).values()
               if isinstance(cls, type) and cls.__module__.startswith("asyncio")}
    owners |= {"signal": signal, "warnings": warnings,
               "loop class": type(loop), "shell class": type(shell),
               "hook class": type(shell.displayhook), "publisher class": type(shell.display_pub),
               "stream class": type(sys.stdout)}
    owners |= {f"{name} class {cls.__name__}": cls for name, obj in own.items() for cls in type(obj).__mro__}
    seen = {f"{name}.{key}": value for name, owner in owners.items() for key, value in vars(owner).items()}
    functions = [(name, value) for name, value in seen.items() if hasattr(value, "__code__")]
    seen |= {f"{name}.__code__": value.__code__ for name, value in functions}
    for name, owner in {"loop": loop, "shell": shell, "compiler": shell.compile, **own}.items():
        seen |= {f"{name}.{key}": value for key, value in vars(owner).items()}
    tables = {"line": shell.magics_manager.magics["line"], "cell": shell.magics_manager.magics["cell"],
              "registry": shell.magics_manager.registry,
              **{f"events {name}": dict(enumerate(fns)) for name, fns in shell.events.callbacks.items()},
              "transformers": dict(enumerate(shell.input_transformers_cleanup)),
              "post": dict(enumerate(shell.input_transformers_post)),
              "ast": dict(enumerate(shell.ast_transformers)),
              "configurables": dict(enumerate(shell.configurables)),
              "gc.callbacks": dict(enumerate(gc.callbacks)), "selector": vars(getattr(loop, "_selector", gc))}
    seen |= {f"{name}[{key}]": value for name, table in tables.items() for key, value in table.items()}
    seen |= {f"{name} echo": getattr(getattr(sys, name), "echo", None) for name in ("stdout", "stderr")}
    return seen | {"factory": loop.get_task_factory(), "sigint": signal.getsignal(signal.SIGINT),
                   "history": vars(shell.history_manager).get("store_inputs"), "runner": shell.loop_runner,
                   "handler": loop.get_exception_handler(), "hooks": sys.get_asyncgen_hooks().firstiter,
                   "unraisable": sys.unraisablehook, "sigurg": signal.getsignal(signal.SIGURG),
                   **{thread.name: thread for thread in threading.enumerate() if "loopnb" in thread.name}}

def same(value, other):
    return value is other or (hasattr(value, "__self__") and value == other)

# What IPython and the kernel change from cell to cell, or the loop from pass to pass.
MOVES = ("loop._ready", "loop._scheduled", "loop._timer_cancelled_count", "loop._current_handle",
         "loop._asyncgens", "shell._last", "shell.last_", "shell._parent_header", "shell._trait_values",
         "compiler.flags", "asyncio.tasks._current_tasks", "asyncio.tasks._task_name_counter")
if hasattr(get_ipython(), "kernel"):
    MOVES += ("kernel._shell_context", "kernel.saved_sigint", "kernel._parent", "kernel._new_threads_parent",
              "kernel._trait_values")
else:
    MOVES += ("loop._thread_id", "loop._old_agen_hooks", "hooks", "prompt.app", "prompt.default",
              "prompt.message", "prompt.lexer", "prompt.input_processors", "prompt.prompt_continuation",
              "prompt._")

def difference(before, after):
    names = {*before, *after}
    return sorted(n for n in names if not same(before.get(n), after.get(n)) and not n.startswith(MOVES))

get_ipython().run_line_magic("unload_ext", "nothing")  # IPython loads this magic when it is first used
"""
"""Defines `fingerprint()` and `difference(before, after)` in a kernel or a terminal.

A fingerprint holds everything loopnb could leave behind, by identity: modules and classes of asyncio, the
loop, the shell, the kernel, and the tables they keep. Values are kept alive so that no id is used twice.
"""

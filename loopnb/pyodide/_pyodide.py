"""Private names of Pyodide's kernel. Checked on pyodide_kernel 0.8.6."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from loopnb.frames import frame_outside
from loopnb.patching import Patch

#: The request of the cell that the Context belongs to. Process-wide, like the patched class that reads it.
_request: ContextVar[Any] = ContextVar("loopnb_request")


def forgets_end_of_await_cells(kernel: Any) -> bool:
    """Return True if *kernel* does not announce that a cell which awaits has ended (`PyodideKernel.run`)."""
    code = getattr(getattr(type(kernel), "run", None), "__code__", None)
    return code is not None and "post_run_cell" not in code.co_names + code.co_consts


def is_called_by_kernel(kernel: Any) -> bool:
    """Return True if *kernel* itself asks for the cell that the caller is to run (`PyodideKernel.run`)."""
    frame = frame_outside()
    return frame is not None and frame.f_code is type(kernel).run.__code__


def keep_request(kernel: Any) -> None:
    """Let the output of code in the present Context, and in copies of it, answer the newest request."""
    _request.set(getattr(kernel, "_parent_header", None))


def patch_request(kernel: Any) -> Patch:
    """Return the patch by which output answers the request that `keep_request` has noted in the Context.

    `PyodideKernel._parent_header`: JavaScript sets it for each request, and reads it for each output. We put
    a property of this name into the class.
    """

    def read(self: Any) -> Any:
        request = _request.get(None)
        if request is not None:
            return request
        try:
            return vars(self)["_parent_header"]
        except KeyError:
            raise AttributeError("_parent_header") from None

    def write(self: Any, request: Any) -> None:
        vars(self)["_parent_header"] = request

    return Patch(type(kernel), "_parent_header", property(read, write))

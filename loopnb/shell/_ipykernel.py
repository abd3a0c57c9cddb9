"""Private names of ipykernel that interrupts use.

Checked on ipykernel 6.31.0, 7.3.0 and 7.4.0.
"""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING

from loopnb.frames import outwards

if TYPE_CHECKING:
    from types import FrameType

# How many frames below `Kernel._input_request` a signal may find the kernel: in `zmq.select`, or in its
# polling.
_DEEPEST_INPUT = 8

# How many frames below `OutStream.flush` a signal may find the kernel: in `Event.wait` and what that calls,
# or in our handler there, which asks for the signal to be sent again.
_DEEPEST_FLUSH = 16


def is_asking(frame: FrameType | None) -> bool:
    """Return True if *frame* asks the user for input. The kernel expects KeyboardInterrupt there.

    `Kernel._input_request`, a few frames up. Where ipykernel has no such method, nothing is known to ask.
    """
    kernel = getattr(sys.modules.get("ipykernel.kernelbase"), "Kernel", None)
    code = getattr(getattr(kernel, "_input_request", None), "__code__", None)
    return code is not None and any(
        caller.f_code is code for caller in islice(outwards(frame), _DEEPEST_INPUT)
    )


def is_flushing(frame: FrameType | None) -> bool:
    """Return True if *frame* flushes output: it waits for the thread that sends it, for some milliseconds.

    `OutStream.flush`, a few frames up, which is public. It waits at most `OutStream.flush_timeout` seconds.
    An error raised while `threading.Condition.wait` takes its lock back there becomes "RuntimeError: release
    unlocked lock". Without ipykernel, nothing is known to flush.
    """
    stream = getattr(sys.modules.get("ipykernel.iostream"), "OutStream", None)
    code = getattr(getattr(stream, "flush", None), "__code__", None)
    return code is not None and any(
        caller.f_code is code for caller in islice(outwards(frame), _DEEPEST_FLUSH)
    )

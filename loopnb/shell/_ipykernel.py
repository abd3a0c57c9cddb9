from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

# How far below `Kernel._input_request` a signal may find the kernel: in `zmq.select`, or in its polling.
_DEEPEST_INPUT = 8


def is_asking(frame: FrameType | None) -> bool:
    """Say whether what runs in *frame* asks the user for input, and expects KeyboardInterrupt.

    `Kernel._input_request` of ipykernel, a few frames up. Where there is none, it is not known.
    """
    kernel = getattr(sys.modules.get("ipykernel.kernelbase"), "Kernel", None)
    code = getattr(getattr(kernel, "_input_request", None), "__code__", None)
    for _ in range(_DEEPEST_INPUT):
        if frame is None or code is None:
            return False
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False

"""Private names of ipykernel, and of its debugger pydevd, that watching needs.

Checked on ipykernel 6.31.0, 7.3.0 and 7.4.0.
"""

from __future__ import annotations

#: The functions that wait for the user: the end of the file name, and the function. If one is missing here, a
#: wait in it counts as a block. `Kernel._input_request` serves `input()` and `getpass()`.
ASKS_USER = (
    ("ipykernel/kernelbase.py", "_input_request"),
    ("pydevd.py", "do_wait_suspend"),
    ("pydevd.py", "_do_wait_suspend"),
)

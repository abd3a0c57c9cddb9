"""The kernels of `tests/kernel`, for the tests of packages that are used in cells."""

from __future__ import annotations

from tests.kernel.conftest import fresh_kernel, kernel, kernels_ahead, module_kernel, stock_kernel, zygote

__all__ = ["fresh_kernel", "kernel", "kernels_ahead", "module_kernel", "stock_kernel", "zygote"]

"""async-kernel, whose kernels are none of ipykernel's: loopnb refuses to load there, and nesting works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.driver import KernelDriver

if TYPE_CHECKING:
    from pathlib import Path

# Without the options it would take uvloop's loop if that is installed. On that loop nothing can nest.
START = """
import runpy, sys
sys.argv[1:] = ["start", f"--connection_file={sys.argv[1]}", "--name=async", "--backend_options={}"]
runpy.run_module("async_kernel", run_name="__main__")
"""


@pytest.mark.slow
def test_loading_is_refused_and_nesting_works_in_async_kernel(tmp_path: Path) -> None:
    with KernelDriver(tmp_path, script=START) as kernel:
        kernel.run("import asyncio; stock = asyncio.run")
        refused = kernel.execute("%load_ext loopnb")

        assert refused.ename == "UnsupportedKernelError"
        assert "async_kernel.kernel.Kernel" in refused.evalue
        assert "loopnb.nesting.apply()" in refused.evalue
        assert kernel.run("asyncio.run is stock").result == "True"

        kernel.run(
            """
            import loopnb.nesting
            loopnb.nesting.apply()
            async def leaf():
                await asyncio.sleep(0.01)
                return "works"
            async def main():
                return asyncio.run(leaf())
            """
        )
        assert kernel.run("asyncio.run(main())").result == "'works'"
        assert kernel.run("await main()").result == "'works'"

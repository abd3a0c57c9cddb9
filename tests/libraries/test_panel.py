"""panel, which starts the notebook's loop and expects that this fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver


@pytest.mark.timeout(120)
def test_a_server_runs_beside_the_cells(kernel: KernelDriver) -> None:
    kernel.run("import httpx, panel", timeout=90)
    kernel.run("server = panel.serve(panel.Column('hello'), port=0, show=False, threaded=False)", timeout=20)
    kernel.run(
        """
        async with httpx.AsyncClient() as client:
            page = await client.get(f"http://127.0.0.1:{server.port}/", timeout=20)
        """
    )

    assert kernel.value("page.status_code") == 200
    kernel.run("server.stop()")

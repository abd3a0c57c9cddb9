"""What Colab's front end needs. `google.colab` is there only on Colab, so here something stands in for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver


def test_colab_is_asked_once_for_the_manager_of_foreign_widgets(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run("""
        import sys
        from types import ModuleType, SimpleNamespace

        calls = []
        output = ModuleType("google.colab.output")
        output.enable_custom_widget_manager = lambda: calls.append("enabled")
        output._widgets = SimpleNamespace(_installed_url="https://example.org/manager.js")
        sys.modules["google.colab.output"] = output
        import loopnb
    """)
    for _ in range(2):
        shown = fresh_kernel.run("loopnb.show()")
        assert "application/vnd.jupyter.widget-view+json" in shown.displays[1]  # below the stored table

    assert fresh_kernel.value("calls") == ["enabled"]

"""A view on a plain page: no JupyterLab, no kernel, and so a test in a tenth of a second.

What a view does by itself is tried here. That the kernel's side answers as `fake_kernel.js` does is what the
tests in JupyterLab are for.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopnb.widgets import assets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from playwright.sync_api import Locator, Page

FAKE_KERNEL = (Path(__file__).parent / "fake_kernel.js").read_text(encoding="utf-8")

#: What these hosts give a widget to draw with: JupyterLab's and VS Code's variables, or nothing.
THEMES = {
    "lab-light": "--jp-layout-color1: #fff; --jp-ui-font-color0: rgba(0, 0, 0, 1)",
    "lab-dark": "--jp-layout-color1: #111; --jp-ui-font-color0: rgba(255, 255, 255, 1)",
    "vscode-dark": "--vscode-editor-background: #1f1f1f; --vscode-foreground: #cccccc",
    "system-light": "color-scheme: light",
    "system-dark": "color-scheme: dark",
}

PAGE = """<!doctype html><meta charset="utf-8"><title>loopnb</title>
<style>html {{ {theme} }} body {{ margin: 0; background: Canvas }}</style><style>{css}</style>
<div id="outside" tabindex="0"><div id="view"></div></div>
<script type="module">
{fake}
let url = URL.createObjectURL(new Blob([{esm}], {{ type: "text/javascript" }}));
let widget = (await import(url)).default;
let kernel = (window.kernel = new FakeKernel({tasks}));
let more = {more};
Object.assign(kernel.head, more.head ?? {{}});
for (let [name, value] of Object.entries(more)) if (name !== "head") kernel[name] = value;
kernel.count();
window.removeView = widget.render({{ model: kernel, el: document.getElementById("view") }});
</script>"""


class PlainPage:
    """A page with one view of a fake kernel.

    Args:
        page: A page of the browser; what it has is replaced.
        tasks: The kernel's tasks: rows that need only a number.
        theme: One of `THEMES`.
        more: Other fields of the fake kernel, such as `finished` or `head`.
    """

    def __init__(
        self,
        page: Page,
        tasks: Sequence[Mapping[str, Any]],
        theme: str = "lab-light",
        **more: Any,
    ) -> None:
        self.page = page
        fake = re.sub(r"^export ", "", FAKE_KERNEL, flags=re.MULTILINE)
        page.mouse.move(2, 2)  # rows that are drawn under the pointer would be held in place
        page.goto("about:blank")  # else the window of the last one stays, with its kernel
        page.set_content(
            PAGE.format(
                theme=THEMES[theme],
                css=assets.CSS,
                fake=fake,
                esm=json.dumps(assets.ESM).replace("</", "<\\/"),
                tasks=json.dumps(list(tasks)),
                more=json.dumps(more),
            )
        )
        self.panel = page.locator(".loopnb-panel")
        self.panel.wait_for()
        page.wait_for_function("Object.keys(kernel.queries).length > 0")

    def kernel(self, script: str) -> Any:
        """Have the fake kernel run *script*, JavaScript in which it is `kernel`."""
        return self.page.evaluate(f"() => {{ {script} }}")

    def heard(self, op: str) -> list[dict[str, Any]]:
        """Return the messages with this op that the view has sent."""
        found: list[dict[str, Any]] = self.page.evaluate(
            "op => kernel.heard.filter(message => message.op === op)", op
        )
        return found

    @property
    def rows(self) -> Locator:
        """The rows that are in the page."""
        return self.panel.locator(".loopnb-row")

    def row(self, text: str) -> Locator:
        """Return the row with this text."""
        return self.rows.filter(has_text=text)

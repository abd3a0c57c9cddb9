"""Counts what a page of JupyterLab hears from its kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

_SCRIPT = """
(() => {
    let wire = (window.wire = { bytes: 0, messages: 0, largest: 0 });
    let typeOf = (data) => {
        let text = typeof data === "string" ? data : new TextDecoder().decode(data.slice(0, 1000));
        return text.match(/"msg_type": ?"(\\w+)"/)?.[1];
    };
    let hear = ({ data }) => {
        let size = data.byteLength ?? data.length;
        wire.bytes += size;
        if (typeOf(data) !== "comm_msg") return;
        wire.messages += 1;
        wire.largest = Math.max(wire.largest, size);
    };
    window.WebSocket = class extends WebSocket {
        constructor(...given) {
            super(...given);
            if (this.url.includes("/channels")) this.addEventListener("message", hear);
        }
    };
})();
"""

ENVELOPE_BYTES = 1_500
"""What Jupyter adds to a message at most: two headers, and the comm's name."""


class Heard(NamedTuple):
    """What a page has heard.

    Attributes:
        bytes: All that the kernel has sent, in bytes.
        messages: How many messages of widgets were among it.
        largest: The bytes of the largest of these.
    """

    bytes: int
    messages: int
    largest: int


def count_in(context: BrowserContext) -> None:
    """Count in all pages that *context* opens from now on."""
    context.add_init_script(_SCRIPT)


def begin(page: Page) -> None:
    """Count from 0 again."""
    page.evaluate("() => { Object.assign(window.wire, { bytes: 0, messages: 0, largest: 0 }); }")


def heard(page: Page) -> Heard:
    """Return what the page has heard since it was loaded, or since the last `begin`."""
    return Heard(**page.evaluate("window.wire"))

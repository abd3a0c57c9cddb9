"""How well a view can be read: WCAG's ratios, computed from what the browser has painted with.

axe's rule for colours examines nothing inside JupyterLab, so this looks at every visible text itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Locator

_SCRIPT = """
let parse = (color) => {
    let numbers = (color.match(/-?[\\d.]+(e-?\\d+)?/g) ?? []).map(Number);
    if (color.startsWith("color(srgb")) {
        let [r, g, b, a = 1] = numbers;
        return [r * 255, g * 255, b * 255, a];
    }
    let [r = 0, g = 0, b = 0, a = 1] = numbers;
    return [r, g, b, a];
};
let over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
let ground = (node) => {
    if (!node) {
        let { colorScheme } = getComputedStyle(document.documentElement);
        return colorScheme === "dark" ? [18, 18, 18] : [255, 255, 255];
    }
    let color = parse(getComputedStyle(node).backgroundColor);
    return color[3] === 1 ? color.slice(0, 3) : over(color, ground(node.parentElement));
};
let light = (color) => {
    let [r, g, b] = color.map((part) => {
        let share = part / 255;
        return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
let ratio = (one, other) => {
    let [high, low] = [light(one), light(other)].sort((a, b) => b - a);
    return Math.round(((high + 0.05) / (low + 0.05)) * 100) / 100;
};
let seen = (node) => node.checkVisibility({ opacityProperty: true, visibilityProperty: true });
let dim = (node) => (node ? Number(getComputedStyle(node).opacity) * dim(node.parentElement) : 1);
"""

_TEXTS = """panel => {
    SCRIPT
    let walker = document.createTreeWalker(panel, NodeFilter.SHOW_TEXT);
    let found = [];
    while (walker.nextNode()) {
        let node = walker.currentNode.parentElement;
        let text = walker.currentNode.data.trim();
        if (!text || !seen(node) || node.matches("option")) continue;
        let [r, g, b, a] = parse(getComputedStyle(node).color);
        let back = ground(node);
        found.push({ text, name: node.className, ratio: ratio(over([r, g, b, a * dim(node)], back), back) });
    }
    for (let field of panel.querySelectorAll("input, select")) {
        if (!seen(field)) continue;
        let names = field.matches("input") ? [undefined, "::placeholder"] : [undefined];
        for (let name of names) {
            let back = ground(field);
            let color = parse(getComputedStyle(field, name).color);
            let text = name ?? field.tagName;
            found.push({ text, name: field.className, ratio: ratio(over(color, back), back) });
        }
    }
    return found;
}""".replace("SCRIPT", _SCRIPT)

_BORDERS = """panel => {
    SCRIPT
    let buttons = [...panel.querySelectorAll("button, input, select")].filter(seen);
    return buttons.flatMap((button) => {
        let style = getComputedStyle(button);
        if (style.borderTopStyle === "none" || parseFloat(style.borderTopWidth) === 0) return [];
        // While a cancel is under way, the button is no button.
        if (button.getAttribute("aria-busy") === "true") return [];
        let back = ground(button.parentElement);
        let color = over(parse(style.borderTopColor), ground(button));
        return [{ text: button.textContent, ratio: ratio(color, back) }];
    });
}""".replace("SCRIPT", _SCRIPT)


def contrasts(panel: Locator) -> list[dict[str, Any]]:
    """Return each visible text in *panel*, with the ratio of its colour to its ground."""
    found: list[dict[str, Any]] = panel.evaluate(_TEXTS)
    return found


def borders(panel: Locator) -> list[dict[str, Any]]:
    """Return each button and field in *panel* that has a border, with the border's ratio to the ground."""
    found: list[dict[str, Any]] = panel.evaluate(_BORDERS)
    return found

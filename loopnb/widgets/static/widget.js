/**
 * The live widget's side in the browser.
 *
 * `render` makes one view. A view sends custom messages only. What it shows came from the kernel, and names in
 * it from user code, so text goes into the page as text, never as HTML.
 *
 * These modules are shipped as they are, and joined to one text when the widget's class is made
 * (`loopnb/widgets/assets.py`), because anywidget serves a single one.
 */

import { View } from "./view.js";

/**
 * Draw one view.
 *
 * @param {{model: import("./kernel.js").Model, el: HTMLElement}} context
 * @returns {() => void} Takes it away.
 */
function render({ model, el }) {
	let view = new View(model, el);
	return () => view.dispose();
}

export default { render };

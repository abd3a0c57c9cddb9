/**
 * The live widget's side in the browser.
 *
 * `render` makes one view. A view sends custom messages only. It shows names that come from user code, so text
 * goes into the page as text, never as HTML.
 *
 * These modules are shipped as they are. anywidget serves a single text, so they are joined when the widget's
 * class is made (`loopnb/widgets/assets.py`).
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

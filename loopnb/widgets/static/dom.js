/** Make elements and change them. Text goes into the page as text, never as HTML: names come from user code. */

/**
 * Make an element.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} name Its class, without the prefix.
 * @param {string} [text]
 * @param {Record<string, string>} [attributes]
 * @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, name, text = "", attributes = {}) {
	let node = document.createElement(tag);
	node.className = `loopnb-${name}`;
	if (text) node.textContent = text;
	for (let [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
	return node;
}

/**
 * Make a button that calls *onClick*.
 *
 * @param {string} name
 * @param {string} text
 * @param {() => void} onClick
 * @param {Record<string, string>} [attributes]
 * @returns {HTMLButtonElement}
 */
export function makeButton(name, text, onClick, attributes = {}) {
	let button = make("button", `button loopnb-${name}`, text, { type: "button", ...attributes });
	button.addEventListener("click", onClick);
	return button;
}

/**
 * Set an element's text. Leave the page alone if it has that text already.
 *
 * @param {HTMLElement} node
 * @param {string} text
 * @param {string} [title]
 */
export function write(node, text, title = "") {
	let { firstChild } = node;
	if (text && firstChild instanceof Text && firstChild === node.lastChild) {
		// To change a text takes the browser less than to put another one in its place.
		if (firstChild.data !== text) firstChild.data = text;
	} else if (node.textContent !== text) node.textContent = text;
	if (node.title !== title) node.title = title;
}

/**
 * Set an element's text, and hide it if there is none.
 *
 * @param {HTMLElement} node
 * @param {string} text
 * @param {string} [title]
 */
export function put(node, text, title = "") {
	write(node, text, title);
	if (node.hidden === Boolean(text)) node.hidden = !text;
}

/**
 * Set an attribute, unless it has that value already. Remove it if *value* is null.
 *
 * @param {Element} node
 * @param {string} name
 * @param {string | null} value
 */
export function putAttribute(node, name, value) {
	if (node.getAttribute(name) === value) return;
	if (value === null) node.removeAttribute(name);
	else node.setAttribute(name, value);
}

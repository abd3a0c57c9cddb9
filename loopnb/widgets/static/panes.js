/** What opens beside or below the table: one task in detail, and the trees. */

import { make, makeButton, put } from "./dom.js";
import { ageText, rowName } from "./texts.js";

/**
 * @typedef {import("./protocol.js").Row} Row
 * @typedef {{text: string, place: string, task: number | null, due_s?: number | null}} ChainPart *due_s*: when a
 *   timer ends the wait.
 * @typedef {{text: string, task: number | null, due_s?: number | null}} Line
 * @typedef {{row?: Row | null, chain: ChainPart[], awaited_by: {number: number, label: string}[],
 *   parents: string[], spawn_site: string, blocks: string[], output: string[], result: string,
 *   traceback: string, cancelled_by: string}} Details
 * @typedef {{depth: number, text: string, numbers: number[], count: number, is_cycle: boolean,
 *   is_again: boolean}} TreeLine
 * @typedef {{showTask(number: number): void, close(): void, cancelNumber(number: number): void,
 *   copy(text: string): void, askTree(kind: string): void}} PaneHost
 */

/**
 * Return what is known of a task as lines of text, for the clipboard.
 *
 * @param {Details} details
 * @param {string} title
 * @returns {string}
 */
export function detailText(details, title) {
	return [title, ...sections(details).flatMap(({ name, lines }) => ["", `${name}:`, ...lines.map(({ text }) => `  ${text}`)])].join("\n");
}

/**
 * @param {Details} details
 * @returns {{name: string, lines: Line[], isCode: boolean}[]}
 */
export function sections(details) {
	let plain = (/** @type {string[]} */ lines) => lines.map((text) => ({ text, task: null }));
	let split = (/** @type {string} */ text) => (text ? plain(text.replace(/\n$/, "").split("\n")) : []);
	let chain = details.chain.map(({ text, place, ...line }) => ({ text: [text, place].filter(Boolean).join("  "), ...line }));
	let by = details.awaited_by.map(({ number, label }) => ({ text: label, task: number }));
	return [
		{ name: "Failed with", lines: split(details.traceback), isCode: true },
		{ name: "Returned", lines: split(details.result), isCode: true },
		{ name: "Cancelled by", lines: split(details.cancelled_by), isCode: false },
		{ name: "Waits in", lines: chain, isCode: true },
		{ name: "Awaited by", lines: by, isCode: false },
		{ name: "Spawned at", lines: split(details.spawn_site), isCode: true },
		{ name: "Spawned by", lines: plain(details.parents), isCode: false },
		{ name: "Blocked the loop", lines: plain(details.blocks), isCode: false },
		{ name: "Last output", lines: plain(details.output), isCode: true },
	].filter(({ lines }) => lines.length);
}

export class DetailPane {
	/** @param {PaneHost} host */
	constructor(host) {
		this.host = host;
		/** @type {number | null} */
		this.number = null;
		this.isLive = true;
		/** @type {Details | null} */
		this.details = null;
		this.element = make("section", "detail", "", { "aria-label": "Task in detail", tabindex: "-1" });
		this.name = make("span", "detail-name");
		this.cancel = makeButton("detail-cancel", "Cancel", () => this.number !== null && host.cancelNumber(this.number));
		this.copy = makeButton("detail-copy", "Copy", () => this.copyText(), { "aria-label": "Copy as text" });
		let close = makeButton("detail-close", "Close", () => host.close());
		let top = make("div", "detail-top");
		top.append(this.name, this.cancel, this.copy, close);
		this.parts = make("div", "detail-parts");
		this.element.append(top, this.parts);
		this.element.hidden = true;
		this.drawn = "";
		/** @type {{node: HTMLElement, due_s: number}[]} */
		this.dues = [];
	}

	/** @param {Row} row */
	open(row) {
		this.number = row.number ?? null;
		this.details = null;
		this.drawn = "";
		this.write(row);
		this.parts.replaceChildren(make("div", "muted", "Asking the kernel…"));
		this.element.hidden = false;
	}

	close() {
		this.number = null;
		this.element.hidden = true;
	}

	/** @param {Row} row */
	write(row) {
		this.isLive = !("ended_s" in row);
		let coro = row.coro && row.coro !== row.name ? `  ${row.coro}` : "";
		put(this.name, `${rowName(row)}${coro}  ·  ${row.state}`, this.name.textContent ?? "");
		// The kernel's own tasks are to be seen only.
		this.cancel.hidden = !this.isLive || Boolean(row.is_kernel);
	}

	/** @param {number} number @param {Details | null} details */
	receive(number, details) {
		if (number !== this.number) return;
		if (!details) return this.parts.replaceChildren(make("div", "muted", "Nothing is known of this task any more."));
		let is = JSON.stringify(details);
		if (is === this.drawn) return;
		this.drawn = is;
		this.details = details;
		if (details.row) this.write(details.row);
		this.dues = [];
		this.parts.replaceChildren(...sections(details).map((section) => this.makeSection(section)));
	}

	/** Count down what a timer ends. @param {number} clock_s */
	tick(clock_s) {
		for (let { node, due_s } of this.dues) put(node, `  ends in ${ageText(due_s - clock_s)}`);
	}

	/** @param {ReturnType<typeof sections>[number]} section */
	makeSection({ name, lines, isCode }) {
		let box = make("div", "detail-section");
		box.append(make("h4", "detail-title", name));
		let list = make("div", isCode ? "detail-lines loopnb-code" : "detail-lines");
		for (let { text, task, due_s } of lines) {
			let line = make("div", "detail-line", text);
			if (task !== null) line.replaceChildren(makeButton("link", text, () => this.host.showTask(task)));
			if (typeof due_s === "number") this.dues.push({ node: line.appendChild(make("span", "due")), due_s });
			list.append(line);
		}
		box.append(list);
		return box;
	}

	copyText() {
		if (this.details) this.host.copy(detailText(this.details, this.name.textContent ?? ""));
	}
}

export class TreePane {
	/** @param {PaneHost} host */
	constructor(host) {
		this.kind = "awaits";
		this.host = host;
		this.element = make("div", "tree");
		let kinds = make("div", "kinds", "", { role: "group", "aria-label": "Which tree" });
		this.buttons = new Map([
			["awaits", makeButton("toggle", "Who awaits whom", () => this.choose("awaits"))],
			["spawned", makeButton("toggle", "Who spawned whom", () => this.choose("spawned"))],
		]);
		kinds.append(...this.buttons.values());
		this.lines = make("div", "lines", "", { role: "tree", "aria-label": "Tree of tasks", tabindex: "0" });
		this.element.append(kinds, this.lines);
		this.drawn = "";
	}

	/** @param {string} kind */
	choose(kind) {
		this.kind = kind;
		this.drawn = "";
		for (let [name, button] of this.buttons) button.setAttribute("aria-pressed", String(name === kind));
		this.lines.replaceChildren(make("div", "muted", "Asking the kernel…"));
		this.host.askTree(kind);
	}

	/** @param {string} kind @param {TreeLine[]} lines @param {number} more */
	receive(kind, lines, more) {
		let is = JSON.stringify([lines, more]);
		if (kind !== this.kind || is === this.drawn) return;
		this.drawn = is;
		let nodes = lines.map((line) => this.makeLine(line));
		if (more) nodes.push(make("div", "muted", `and ${more.toLocaleString("en")} more lines`));
		if (!nodes.length) nodes.push(make("div", "muted", "No task awaits another."));
		this.lines.replaceChildren(...nodes);
	}

	/** @param {TreeLine} line */
	makeLine({ depth, text, numbers, is_cycle, is_again }) {
		let line = make("div", "tree-line", "", { role: "treeitem", "aria-level": String(depth + 1) });
		line.style.paddingInlineStart = `${8 + Math.min(depth, 24) * 18}px`;
		if (numbers.length) line.append(makeButton("link", text, () => this.host.showTask(numbers[0])));
		else line.textContent = text;
		if (is_cycle) line.append(make("span", "cycle", "cycle"));
		else if (is_again) line.append(make("span", "muted", "(see above)"));
		return line;
	}
}

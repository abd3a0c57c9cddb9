/** What a view shows and how: tabs, filters, grouping, pause. */

import { make, makeButton, putAttribute } from "./dom.js";

/**
 * @typedef {import("./protocol.js").Query} Query
 * @typedef {"live" | "finished" | "tree" | "timeline"} Tab
 * @typedef {{choose(tab: Tab): void, ask(change: Partial<Query>): void, pause(): void, leave(): void}} ToolbarHost
 */

/** @type {[Tab, string][]} */
const TABS = [
	["live", "Tasks"],
	["finished", "Finished"],
	["tree", "Tree"],
	["timeline", "Timeline"],
];
/** Pause between the last key and the question to the kernel. */
const TYPING_MS = 150;

export class Toolbar {
	/** @param {ToolbarHost} host */
	constructor(host) {
		this.host = host;
		this.element = make("div", "toolbar");
		this.tabs = make("div", "tabs", "", { role: "tablist", "aria-label": "What to show" });
		/** @type {Map<Tab, HTMLButtonElement>} */
		this.tabButtons = new Map();
		for (let [tab, title] of TABS) {
			let button = makeButton("tab", title, () => host.choose(tab), { role: "tab" });
			this.tabButtons.set(tab, button);
			this.tabs.append(button);
		}
		this.tabs.addEventListener("keydown", (event) => this.tabKey(event));
		this.find = make("input", "find", "", { type: "search", placeholder: "Filter", "aria-label": "Filter by text" });
		this.find.addEventListener("input", () => this.type());
		this.find.addEventListener("keydown", (event) => this.findKey(event));
		this.cell = make("select", "cells", "", { "aria-label": "Filter by cell" });
		this.cell.addEventListener("change", () => host.ask({ cell: this.cell.value || null, offset: 0 }));
		this.group = makeButton("toggle", "Group", () => host.ask({ group: this.group.ariaPressed !== "true", offset: 0 }));
		this.group.title = "Show tasks of one coroutine, cell and waiting place as one row";
		this.kernels = makeButton("toggle", "Kernel", () => host.ask({ kernels: this.kernels.ariaPressed !== "true", offset: 0 }));
		this.kernels.title = "Show the tasks of the kernel itself, too";
		this.pause = makeButton("toggle", "Pause", () => host.pause());
		this.pause.title = "Freeze rows and ages";
		this.element.append(this.tabs, this.find, this.cell, this.group, this.kernels, this.pause);
		this.timer = 0;
		this.options = "";
	}

	/** @param {Tab} tab @param {Query} query @param {string[]} cells @param {boolean} isPaused */
	update(tab, query, cells, isPaused) {
		for (let [name, button] of this.tabButtons) {
			putAttribute(button, "aria-selected", String(name === tab));
			putAttribute(button, "tabindex", name === tab ? "0" : "-1");
		}
		let isTable = tab === "live" || tab === "finished";
		this.find.hidden = !isTable;
		this.cell.hidden = !isTable || (!cells.length && !query.cell);
		this.group.hidden = this.kernels.hidden = tab !== "live";
		putAttribute(this.group, "aria-pressed", String(query.group));
		putAttribute(this.kernels, "aria-pressed", String(query.kernels));
		putAttribute(this.pause, "aria-pressed", String(isPaused));
		if (document.activeElement !== this.find && this.find.value !== query.text) this.find.value = query.text;
		this.writeCells(cells, query.cell);
	}

	/** @param {string[]} cells @param {string | null} chosen */
	writeCells(cells, chosen) {
		let all = chosen && !cells.includes(chosen) ? [...cells, chosen] : cells;
		let is = JSON.stringify(all);
		// An open list is left alone.
		if (is !== this.options && document.activeElement !== this.cell) {
			this.options = is;
			let options = ["", ...all].map((cell) => {
				let option = make("option", "option", cell || "All cells");
				option.value = cell;
				return option;
			});
			this.cell.replaceChildren(...options);
		}
		if (this.cell.value !== (chosen ?? "")) this.cell.value = chosen ?? "";
	}

	type() {
		clearTimeout(this.timer);
		this.timer = setTimeout(() => this.host.ask({ text: this.find.value, offset: 0 }), TYPING_MS);
	}

	/** @param {KeyboardEvent} event */
	findKey(event) {
		if (event.key !== "Escape") return;
		event.preventDefault();
		if (!this.find.value) return this.host.leave();
		this.find.value = "";
		this.type();
	}

	/** @param {KeyboardEvent} event */
	tabKey(event) {
		let step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
		if (event.key === "Escape") return this.host.leave();
		if (!step) return;
		event.preventDefault();
		let names = TABS.map(([name]) => name);
		let now = names.findIndex((name) => this.tabButtons.get(name) === event.target);
		let next = names[(now + step + names.length) % names.length];
		this.tabButtons.get(next)?.focus();
		this.host.choose(next);
	}

	dispose() {
		clearTimeout(this.timer);
	}
}

/** One view: it hears the kernel, keeps the state that it shows, and asks for what the user wants to see. */

import { make, put, putAttribute } from "./dom.js";
import { Header } from "./header.js";
import { findCell, watchKernel } from "./kernel.js";
import { MOST_HEIGHT } from "./layout.js";
import { DetailPane, TreePane } from "./panes.js";
import { applyShared, applyWindow, FIRST_QUERY } from "./protocol.js";
import { TaskTable } from "./table.js";
import { countText, kernelGoneText, liveness } from "./texts.js";
import { TimelinePane } from "./timeline.js";
import { Toolbar } from "./toolbar.js";

/**
 * @typedef {import("./protocol.js").Query} Query
 * @typedef {import("./protocol.js").Row} Row
 * @typedef {import("./kernel.js").Model} Model
 * @typedef {import("./toolbar.js").Tab} Tab
 */

/** A visible view says so this often; the kernel forgets it after 30 s. */
const LEASE_EVERY_MS = 10_000;
const RESYNC_EVERY_MS = 1_000;
/** After a lost connection, the kernel has this long to answer before the view says that it is gone. */
const ANSWER_MS = 1_200;
const NOTE_FOR_MS = 8_000;
/** A cancel that was answered and has no end after this long may be asked for again. */
const FORGET_MS = 2_000;
const TICK_MS = 500;
const DEFAULT_HEIGHT = 420;

export class View {
	/**
	 * @param {Model} model
	 * @param {HTMLElement} el
	 */
	constructor(model, el) {
		this.model = model;
		this.id = Math.random().toString(36).slice(2);
		this.requests = 0;
		let { shared, window, end } = model.get("snapshot");
		let options = model.get("options");
		/** @type {import("./protocol.js").Shared} */
		this.shared = shared;
		/** @type {import("./protocol.js").Window} */
		this.window = window;
		/** @type {Query} */
		this.query = { ...FIRST_QUERY, ...window.query, group: options?.group ?? window.query.group };
		/** @type {Tab} */
		this.tab = "live";
		/** @type {Map<string, import("./table.js").Pending>} */
		this.pending = new Map();
		/** The request for a trace that is being answered, or "". */
		this.traceId = "";
		/** What has come of that trace. @type {string[]} */
		this.pieces = [];
		/** How the tasks have ended whose rows are held in place. @type {Map<string, string>} */
		this.ended = new Map();
		this.isVisible = this.isOnScreen = this.isPaused = false;
		this.width = this.keptHeight = 0;
		/** Why the view hears no more: one sentence, or "". */
		this.goneText = "";
		/** When it may have lost the kernel; it asks, and waits for the answer. */
		this.doubtedAt = /** @type {number | null} */ (null);
		this.notedAt = this.askedAt = -Infinity;
		/** Kernel's clock minus ours, in seconds; null until the kernel has spoken to this view. */
		this.offset_s = /** @type {number | null} */ (null);
		this.heardAt = performance.now();
		this.clock_s = shared.clock_s;
		this.frame = this.ticker = this.lease = 0;
		this.panel = make("div", "panel", "", { tabindex: "-1", role: "region", "aria-label": "loopnb: tasks of the loop" });
		this.panel.style.setProperty("--loopnb-height", `${Math.min(options?.height ?? DEFAULT_HEIGHT, MOST_HEIGHT)}px`);
		this.end = make("div", "end", "", { role: "alert" });
		this.sheet = storedSheet(shared.epoch);
		this.header = new Header(this);
		this.toolbar = new Toolbar(this);
		this.table = new TaskTable(this);
		this.tree = new TreePane(this);
		this.timeline = new TimelinePane(this);
		this.detail = new DetailPane(this);
		this.empty = make("div", "empty");
		this.foot = make("div", "foot");
		this.note = make("div", "note", "", { role: "status" });
		this.layOut(el);
		this.receive = this.receive.bind(this);
		this.doubt = this.doubt.bind(this);
		this.look = this.look.bind(this);
		this.screen = this.screen.bind(this);
		this.unwatchKernel = watchKernel(model, (what) => this.lose(what));
		this.seen = new IntersectionObserver((entries) => {
			this.isOnScreen = entries[entries.length - 1].isIntersecting;
			this.look();
		});
		this.sized = new ResizeObserver(() => this.fit());
		this.listen();
		if (end) this.finish(end);
		else this.draw();
	}

	/** @param {HTMLElement} el */
	layOut(el) {
		let main = make("div", "main");
		main.append(this.table.element, this.empty, this.tree.element, this.timeline.element);
		let split = make("div", "split");
		split.append(main, this.detail.element);
		this.panel.append(this.end, this.header.element, this.toolbar.element, split, this.foot, this.note);
		el.append(this.sheet, this.panel);
	}

	listen() {
		this.model.on("msg:custom", this.receive);
		this.model.on("comm_live_update", this.doubt);
		document.addEventListener("visibilitychange", this.look);
		window.addEventListener("keydown", this.screen, true);
		this.panel.addEventListener("keydown", (event) => this.key(event));
		this.seen.observe(this.panel);
		this.sized.observe(this.panel);
	}

	dispose() {
		this.model.off("msg:custom", this.receive);
		this.model.off("comm_live_update", this.doubt);
		this.unwatchKernel();
		document.removeEventListener("visibilitychange", this.look);
		window.removeEventListener("keydown", this.screen, true);
		this.seen.disconnect();
		this.sized.disconnect();
		this.toolbar.dispose();
		this.isOnScreen = false;
		this.look();
		cancelAnimationFrame(this.frame);
		this.sheet.remove();
		this.panel.remove();
	}

	/**
	 * Keep plain keys from the notebook's shortcuts (X cuts the cell); Ctrl+S and the like go through.
	 *
	 * Lumino listens on the document, so it gets a key before any handler of ours below that. It walks
	 * outwards from the focused element until a shortcut matches or an element has this attribute. A
	 * shortcut may match the focused element itself, so we set the attribute there.
	 *
	 * @param {KeyboardEvent} event
	 */
	screen(event) {
		let target = /** @type {Element} */ (event.target);
		if (!this.panel.contains(target)) return;
		target.toggleAttribute("data-lm-suppress-shortcuts", !event.ctrlKey && !event.metaKey);
	}

	/** @param {KeyboardEvent} event */
	key(event) {
		if (event.ctrlKey || event.metaKey || event.altKey) return;
		// Front ends that listen further out hear nothing of it.
		event.stopPropagation();
		let isTyped = /** @type {Element} */ (event.target).matches("input, select");
		if (event.defaultPrevented || isTyped) return;
		if (event.key === "/") {
			event.preventDefault();
			this.find();
		}
		if (event.key === "Escape") this.leave();
	}

	/** Note whether the view is visible. Only meanwhile do the timers run, and does the kernel look. */
	look() {
		let isVisible = this.isOnScreen && !document.hidden;
		if (isVisible === this.isVisible) return;
		this.isVisible = isVisible;
		clearInterval(this.ticker);
		clearInterval(this.lease);
		this.sayVisible();
		if (!isVisible) return;
		this.heardAt = performance.now();
		this.ticker = setInterval(() => this.tick(true), TICK_MS);
		this.lease = setInterval(() => this.renew(), LEASE_EVERY_MS);
		this.schedule();
	}

	sayVisible() {
		this.send({ op: "visible", view: this.id, visible: this.isVisible, query: this.query });
	}

	/**
	 * Say again that the view is visible, but not while a cell runs. JupyterLab would show the kernel as idle
	 * when the message has been handled, and the kernel keeps views meanwhile.
	 */
	renew() {
		let { head, block } = this.shared;
		let isBusy = head.cell !== null || block !== null;
		if (!isBusy && !this.goneText) this.sayVisible();
	}

	/** The comm was lost or has come back. Only an answer of the kernel tells which. */
	doubt() {
		if (this.goneText) return;
		this.doubtedAt ??= performance.now();
		setTimeout(() => this.tick(), ANSWER_MS + 50);
		this.sayVisible();
	}

	/** @param {"restart" | "end" | "unknown"} what */
	lose(what) {
		if (this.goneText) return;
		this.stop(kernelGoneText(what, Date.now() / 1000));
	}

	/** The kernel says that nothing will come any more. @param {{why: string, text: string}} message */
	finish({ why, text }) {
		if (why === "restarted") return this.lose("restart");
		if (why === "shut down") return this.lose("end");
		this.stop(text);
	}

	/** Nothing will come any more: say why, and grey everything. @param {string} text */
	stop(text) {
		this.goneText = text;
		this.pending.clear();
		this.detail.cancel.disabled = true;
		// Nobody answers what these ask.
		let asking = [this.header.counts, this.toolbar.element, this.table.header, this.tree.element, this.timeline.export];
		for (let element of asking) element.inert = true;
		this.draw();
	}

	/** @param {Record<string, unknown>} content */
	send(content) {
		if (this.goneText) return;
		try {
			this.model.send(content);
		} catch {
			// The comm has been disposed: JupyterLab does that when the kernel restarts.
			this.lose("unknown");
		}
	}

	/** @param {any} message */
	receive(message) {
		if (this.goneText || (message.view !== undefined && message.view !== this.id)) return;
		if (message.op === "end") return this.finish(message);
		if (message.op !== "ack" && message.epoch !== this.shared.epoch) return this.lose("restart");
		this.doubtedAt = null;
		this.heardAt = performance.now();
		let clock_s = (message.shared ?? message).clock_s;
		if (clock_s !== undefined) this.setClock(clock_s);
		if (message.op === "ack") this.acknowledge(message);
		else if (message.op === "detail") this.detail.receive(message.number, message.detail);
		else if (message.op === "tree") this.tree.receive(message.kind, message.lines, message.more);
		else if (message.op === "timeline") this.timeline.receive(message);
		else if (message.op === "trace") this.takeTrace(message);
		else this.take(message);
		this.schedule();
	}

	/** Apply what has changed. @param {any} message */
	take(message) {
		if (message.op === "shared") this.shared = message.shared;
		else if (message.op === "window") this.takeWindow(message);
		else this.shared = applyShared(this.shared, message) ?? this.resync() ?? this.shared;
	}

	/** @param {any} message */
	takeWindow(message) {
		let next = applyWindow(this.window, message);
		if (!next) return this.resync();
		// The user's own question decides the order; nothing is held against it.
		if (isOtherOrder(next.query, this.window.query)) {
			this.table.release();
			this.ended.clear();
		}
		this.window = next;
		for (let [key, outcome] of Object.entries(message.ended ?? {})) this.ended.set(key, String(outcome));
		for (let key of Object.keys(message.rows)) this.ended.delete(key);
	}

	/** @param {number} clock_s */
	setClock(clock_s) {
		let offset_s = clock_s - this.heardAt / 1000;
		// A message that was long under way makes the offset too small. So keep the largest offset, unless
		// a clock was changed by more than a second.
		let old = this.offset_s ?? -Infinity;
		if (offset_s > old || old - offset_s > 1) this.offset_s = offset_s;
	}

	resync() {
		if (performance.now() - this.askedAt < RESYNC_EVERY_MS) return;
		this.askedAt = performance.now();
		this.send({ op: "resync", view: this.id, query: this.query });
	}

	// What the parts of the view ask for.

	/** @param {Partial<Query>} change */
	ask(change) {
		this.query = { ...this.query, ...change };
		// Other rows are read from the top; opening a group changes only what is below it.
		if (change.offset === 0) this.table.scroll.scrollTop = 0;
		this.send({ op: "query", view: this.id, query: this.query });
		this.schedule();
	}

	/** Ask for the rows that are scrolled to. @param {number} offset */
	scrollTo(offset) {
		this.query = { ...this.query, offset };
		this.send({ op: "query", view: this.id, query: this.query });
	}

	/** @param {Tab} tab */
	choose(tab) {
		if (tab === this.tab) return;
		if (this.tab === "tree") this.send({ op: "tree", view: this.id, kind: null });
		if (this.tab === "timeline") this.send({ op: "timeline", view: this.id, shown: false });
		this.tab = tab;
		if (tab === "tree") this.tree.choose(this.tree.kind);
		if (tab === "timeline") this.send({ op: "timeline", view: this.id, shown: true });
		if (tab === "live" || tab === "finished") {
			// By age the oldest task is first, or the newest failure.
			if (this.query.tab !== tab) this.ask({ tab, states: [], offset: 0, sort: "age", desc: false });
		}
		this.draw();
	}

	/** Show only tasks in this state, or again all. @param {string} state */
	filter(state) {
		let tab = /** @type {"live" | "finished"} */ (state === "failed" || state === "finished" ? "finished" : "live");
		let states = state === "failed" ? ["raised"] : state === "finished" ? [] : [state];
		let isSame = this.pressed === state;
		this.choose(tab);
		this.ask({ states: isSame ? [] : states, offset: 0 });
	}

	/** @returns {string} The state that the table is filtered by, as the header calls it. */
	get pressed() {
		if (this.tab !== "live" && this.tab !== "finished") return "";
		let [state = ""] = this.query.states;
		return state === "raised" ? "failed" : state;
	}

	/** Open a group, or a task in detail; close it if it is open. @param {Row} row */
	open(row) {
		if (this.goneText) return;
		if (row.count !== undefined) {
			let open = this.query.open.filter((key) => key !== row.key);
			if (!row.is_open) open.push(row.key);
			return this.ask({ open });
		}
		if (row.number === undefined) return;
		if (this.detail.number === row.number) return this.close();
		this.detail.open(row);
		this.send({ op: "detail", view: this.id, number: row.number });
		this.draw();
	}

	/** @param {number} number */
	showTask(number) {
		let { rows } = this.window;
		let row = rows[`t${number}`] ?? rows[`f${number}`];
		this.detail.open(row ?? { key: `t${number}`, number, name: `task ${number}`, coro: "", state: "", spawn_site: "" });
		this.send({ op: "detail", view: this.id, number });
		this.draw();
	}

	close() {
		let had = this.detail.element.contains(document.activeElement);
		this.detail.close();
		this.send({ op: "detail", view: this.id, number: null });
		this.draw();
		if (had) this.table.go(this.table.activeIndex);
	}

	/** @param {Row} row */
	cancel(row) {
		let id = this.request(row.key);
		if (row.count === undefined) return this.send({ op: "cancel", id, number: row.number });
		this.send({ op: "cancel", id, view: this.id, group: row.key });
	}

	/** @param {number} number */
	cancelNumber(number) {
		this.send({ op: "cancel", id: this.request(`t${number}`), number });
	}

	cancelLeftovers() {
		this.send({ op: "cancel", id: this.request("leftovers"), leftovers: true });
	}

	/** Note that a cancel is under way. @param {string} key @returns {string} Its id. */
	request(key) {
		let id = `${this.id}:${++this.requests}`;
		this.pending.set(key, { id, at: performance.now(), isAnswered: false });
		this.schedule();
		return id;
	}

	/** @param {{id: string | null, ok: boolean, text: string, final?: boolean}} message */
	acknowledge({ id, ok, text, final = false }) {
		if (id !== null && !id.startsWith(`${this.id}:`)) return;
		for (let [key, pending] of this.pending) {
			if (pending.id !== id) continue;
			if (!ok || final) this.pending.delete(key);
			else this.pending.set(key, { ...pending, at: performance.now(), isAnswered: true });
		}
		this.say(text, ok);
	}

	/** Tell the user of an outcome. @param {string} text @param {boolean} [ok] */
	say(text, ok = true) {
		this.note.textContent = text;
		this.note.dataset.ok = String(ok);
		this.notedAt = performance.now();
	}

	askTrace() {
		this.pieces = [];
		this.traceId = `${this.id}:${++this.requests}`;
		this.send({ op: "trace", view: this.id, id: this.traceId });
	}

	/** Collect the pieces of the trace, and save it when all are there. @param {any} message */
	takeTrace({ id, part, parts, text }) {
		if (id !== this.traceId) return; // it was asked for again meanwhile, or it is saved
		this.pieces[part] = text;
		if (Object.keys(this.pieces).length < parts) return;
		this.traceId = "";
		this.save("loopnb-trace.json", this.pieces.join(""));
	}

	/** @param {string} kind */
	askTree(kind) {
		this.send({ op: "tree", view: this.id, kind });
	}

	pause() {
		this.isPaused = !this.isPaused;
		this.draw();
	}

	find() {
		if (this.toolbar.find.hidden) this.choose("live");
		this.toolbar.find.focus();
		this.toolbar.find.select();
	}

	/** Close the detail, or else give the keyboard back to the notebook. */
	leave() {
		if (this.detail.number !== null) return this.close();
		let outside = /** @type {HTMLElement | null} */ (this.panel.parentElement?.closest("[tabindex]") ?? null);
		if (outside) outside.focus({ preventScroll: true });
		else /** @type {HTMLElement | null} */ (document.activeElement)?.blur();
	}

	/** @param {string} cell */
	showCell(cell) {
		let found = findCell(this.panel, cell);
		if (!found) return this.say(`${cell} is not on this page.`, false);
		let isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
		found.scrollIntoView({ behavior: isCalm ? "auto" : "smooth", block: "nearest" });
	}

	/** @param {string} text */
	copy(text) {
		navigator.clipboard?.writeText(text).then(
			() => this.say("Copied."),
			() => this.say("The browser did not let loopnb copy.", false),
		);
	}

	/** Save a file, as a download. @param {string} name @param {string} text */
	save(name, text) {
		let link = make("a", "download", "", { download: name });
		link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
		this.panel.append(link);
		link.click();
		link.remove();
		setTimeout(() => URL.revokeObjectURL(link.href), 1_000);
	}

	// Drawing.

	/**
	 * Keep what stands above the rows as high as it is, so that they stay in place, or let it grow and shrink
	 * again. What has no room meanwhile is seen when the pointer or the focus leaves the rows.
	 *
	 * @param {boolean} isHeld
	 */
	hold(isHeld) {
		putAttribute(this.panel, "data-held", isHeld ? "" : null);
		for (let { element } of [this.header, this.toolbar]) {
			element.style.height = isHeld ? `${element.getBoundingClientRect().height}px` : "";
		}
		this.panel.style.minHeight = "";
		this.keptHeight = 0;
		this.keepHeight();
	}

	/** While rows are held the view may grow, but not shrink: a page scrolled to its end would move them. */
	keepHeight() {
		if (!this.table.wasHeld) return;
		let { height } = this.panel.getBoundingClientRect();
		if (height <= this.keptHeight) return;
		this.keptHeight = height;
		this.panel.style.minHeight = `${height}px`;
	}

	/** Fit everything to the size of the view. */
	fit() {
		let { width } = this.panel.getBoundingClientRect();
		if (width !== this.width && this.table.wasHeld) {
			// The lines break elsewhere now.
			this.hold(false);
			this.hold(true);
		}
		this.width = width;
		this.schedule();
	}

	schedule() {
		this.frame ||= requestAnimationFrame(() => {
			this.frame = 0;
			this.draw();
		});
	}

	/** @returns {import("./table.js").TableFacts} */
	get tableFacts() {
		let { query, isPaused, pending, ended, clock_s } = this;
		let openKey = this.detail.number === null ? "" : `${query.tab === "live" ? "t" : "f"}${this.detail.number}`;
		return { window: this.window, block: this.shared.block, query, clock_s, isPaused, isGone: Boolean(this.goneText), pending, ended, openKey };
	}

	draw() {
		let { shared } = this;
		let isTable = this.tab === "live" || this.tab === "finished";
		let isGone = Boolean(this.goneText);
		this.updateClock();
		putAttribute(this.panel, "data-tab", this.tab);
		put(this.end, this.goneText);
		if (!this.isPaused) this.header.update(shared, this.clock_s, { pressed: this.pressed, isGone });
		this.toolbar.update(this.tab, this.query, shared.head.cells, this.isPaused);
		this.tree.element.hidden = this.tab !== "tree";
		this.timeline.element.hidden = this.tab !== "timeline";
		this.table.element.hidden = !isTable;
		if (isTable) this.table.update(this.tableFacts);
		let isEmpty = isTable && this.table.total === 0;
		put(this.empty, isEmpty ? this.emptyText() : "");
		this.writeFoot(isTable);
		this.tick();
	}

	emptyText() {
		let { text, states, cell, tab } = this.query;
		if (text || states.length || cell) return "No task matches the filters.";
		return tab === "live" ? "No live tasks" : "No task has ended yet.";
	}

	/** @param {boolean} isTable */
	writeFoot(isTable) {
		let { total } = this.window;
		let more = total - this.table.total;
		let isShifted = this.table.isHeld && [...this.table.rows.values()].some((row) => row.isEnded);
		let text = isTable && isShifted ? "Rows stay in place while the pointer or the focus is among them." : "";
		if (isTable && this.isPaused) text = "Paused: rows and ages stand still.";
		else if (isTable && more > 0) text = `${countText(more, "new row")} will appear below.`;
		put(this.foot, text);
	}

	updateClock() {
		let { taken_at } = this.shared;
		let now = performance.now();
		let silent_ms = this.isVisible ? now - this.heardAt : 0;
		let facts = { ended: this.goneText, paused: this.isPaused, heard: this.offset_s !== null, silent_ms, taken_at };
		let live = liveness(facts);
		if (live.kind === "live") this.clock_s = now / 1000 + (this.offset_s ?? 0);
		putAttribute(this.panel, "data-live", live.kind);
		this.header.writeLive(live);
	}

	/** Update what changes with time alone. Ages stand still when it is not known that they are true. @param {boolean} [isTimer] */
	tick(isTimer = false) {
		let now = performance.now();
		if (this.doubtedAt !== null && now - this.doubtedAt > ANSWER_MS) this.lose("unknown");
		for (let [key, { isAnswered, at }] of this.pending) {
			if (isAnswered && now - at > FORGET_MS && !this.shared.block) this.pending.delete(key);
		}
		this.updateClock();
		let isGone = Boolean(this.goneText);
		if (!this.isPaused) this.header.tick(this.shared, this.clock_s, isGone);
		this.table.tick(this.tableFacts, isTimer);
		if (!this.isPaused) this.detail.tick(this.clock_s);
		if (this.tab === "timeline" && !this.isPaused) this.timeline.draw(this.clock_s);
		if (now - this.notedAt > NOTE_FOR_MS && this.note.textContent) this.note.textContent = "";
		this.keepHeight();
	}
}

/**
 * Hide, while it is in the page, the tables that the kernel has stored for readers of the saved notebook.
 *
 * @param {string} epoch Names the session of the tables.
 * @returns {HTMLStyleElement}
 */
function storedSheet(epoch) {
	let sheet = document.createElement("style");
	let table = `.${CSS.escape(`loopnb-of-${epoch}`)}`;
	// With the room around the output, in JupyterLab and Notebook. Older browsers ignore that rule alone.
	// An ipywidgets.Output has outputs inside an output: the outer one stays.
	let outputs = `:is(.jp-OutputArea-child, .output_area):has(> * > ${table})`;
	sheet.textContent = `${table} { display: none } ${outputs} { display: none }`;
	return sheet;
}

/**
 * Return True if the rows stand in another order: anything but the offset is another.
 *
 * @param {Query} query
 * @param {Query} last
 */
function isOtherOrder(query, last) {
	return JSON.stringify({ ...query, offset: 0 }) !== JSON.stringify({ ...last, offset: 0 });
}

/**
 * The live widget's side in the browser: a table of the loop's tasks, with a button to cancel each.
 *
 * `initialize` runs once per model: it applies what the kernel sends to the one state that all views
 * share. `render` runs once per view: it draws that state and asks the kernel for things, by custom
 * messages only. Names come from user code, so text goes into the page as text, never as HTML.
 *
 * @typedef {{number: number, name: string, coro: string, state: string, spawned_s: number,
 *   cell: string | null, spawn_site: string, waits_at: string, waits_for: string,
 *   parent: number | null}} Row
 * @typedef {{kind: string, condition: string, detail: string, generation: number, engine: string,
 *   parked: number, cell: string | null, tasks: number}} Loop
 * @typedef {{epoch: string, seq: number, taken_at: number, clock_s: number, loop: Loop,
 *   tasks: Record<string, Row>}} State
 * @typedef {{op: "delta", epoch: string, base: number, seq: number, taken_at: number,
 *   clock_s: number, loop?: Loop, tasks: Record<string, Row>, gone: number[]}} Delta
 * @typedef {{get(name: string): any, set(name: string, value: any): void, send(content: any): void,
 *   on(name: string, fn: Function): void, off(name: string, fn: Function): void}} Model
 */

/** A visible view says so this often; the kernel forgets it after 30 s. */
const LEASE_EVERY_MS = 10_000;
/** The kernel speaks every 2 s while a view is visible; longer silence than this is stale. */
const STALE_AFTER_MS = 6_000;
/** A cancel that has no answer after this long waits in the queue of a busy kernel. */
const QUEUED_AFTER_MS = 3_000;
/** A task that lives on for this long after its cancel may be cancelled again. */
const AGAIN_AFTER_MS = 2_000;
const RESYNC_EVERY_MS = 1_000;
const NOTE_FOR_MS = 8_000;
const TICK_MS = 500;

const COLUMNS = ["#", "Task", "State", "Age", "Spawned by", "Waits for", "Action"];

/**
 * Apply a delta. Returns null when one was missed: the caller asks for everything.
 *
 * @param {State} state
 * @param {Delta} delta
 * @returns {State | null}
 */
export function apply(state, delta) {
	if (delta.epoch !== state.epoch) return null;
	// This state was read in the kernel after the delta, and contains it already.
	if (delta.seq <= state.seq) return state;
	if (delta.base !== state.seq) return null;
	let tasks = { ...state.tasks, ...delta.tasks };
	for (let number of delta.gone) delete tasks[number];
	let { seq, taken_at, clock_s, loop = state.loop } = delta;
	return { epoch: state.epoch, seq, taken_at, clock_s, loop, tasks };
}

/**
 * Say an age as people do, rounded down. The kernel has the same function.
 *
 * @param {number} age_s
 * @returns {string}
 */
export function ageText(age_s) {
	age_s = Math.max(age_s, 0);
	if (age_s < 10) return `${(Math.floor(age_s * 10) / 10).toFixed(1)} s`;
	let seconds = Math.floor(age_s);
	let [days, hours] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24];
	let minutes = Math.floor(seconds / 60) % 60;
	let two = (/** @type {number} */ value) => String(value).padStart(2, "0");
	if (days) return `${days} d ${two(hours)} h`;
	if (hours) return `${hours} h ${two(minutes)} min`;
	return minutes ? `${minutes} min ${two(seconds % 60)} s` : `${seconds} s`;
}

/**
 * Say in one clause what the loop is doing.
 *
 * @param {Loop} loop
 * @returns {string}
 */
export function conditionText(loop) {
	if (loop.condition === "set aside" && loop.detail) return loop.detail;
	let cell = loop.cell ?? "a cell";
	let words = loop.condition;
	if (words === "running") words = `running, ${cell} is executing`;
	if (words === "nested") words = `running, ${cell} waits in a nested run`;
	return loop.detail ? `${words} (${loop.detail})` : words;
}

/**
 * Describe whether what is shown is still true, and if not, of what time it is.
 *
 * @param {{isGone: boolean, fault: string, heard: boolean, silent_ms: number, taken_at: number}} facts
 * @returns {{kind: "live" | "waiting" | "stale" | "gone", text: string}}
 */
export function liveness({ isGone, fault, heard, silent_ms, taken_at }) {
	let asOf = `as of ${new Date(taken_at * 1000).toLocaleTimeString()}`;
	if (fault) return { kind: "gone", text: `stopped: ${fault} · ${asOf}` };
	if (isGone) return { kind: "gone", text: `kernel gone · ${asOf}` };
	if (silent_ms > STALE_AFTER_MS) {
		return { kind: "stale", text: `no answer for ${Math.floor(silent_ms / 1000)} s · ${asOf}` };
	}
	return heard ? { kind: "live", text: "live" } : { kind: "waiting", text: asOf };
}

/**
 * Keep the model's state up to date, once for all views.
 *
 * @param {{model: Model}} context
 */
function initialize({ model }) {
	let askedAt = -Infinity;
	/** @param {any} message */
	function receive(message) {
		let state = model.get("snapshot");
		/** @type {State | null} */
		let next = state;
		if (message.op === "snapshot" && message.state.epoch === state.epoch) next = message.state;
		if (message.op === "delta" && message.epoch === state.epoch) next = apply(state, message);
		if (message.op === "beat" && message.epoch === state.epoch && message.seq !== state.seq) next = null;
		if (next) {
			// Never saved to the kernel: this is where views, and a saved notebook, read it.
			if (next !== state) model.set("snapshot", next);
		} else if (performance.now() - askedAt > RESYNC_EVERY_MS) {
			askedAt = performance.now();
			model.send({ op: "resync" });
		}
	}
	model.on("msg:custom", receive);
	return () => model.off("msg:custom", receive);
}

/**
 * Make an element.
 *
 * @param {string} tag
 * @param {string} name Its class, without the prefix.
 * @param {string} [text]
 * @returns {HTMLElement}
 */
function make(tag, name, text = "") {
	let node = document.createElement(tag);
	node.className = `loopnb-${name}`;
	if (text) node.textContent = text;
	return node;
}

/**
 * Set an element's text and leave the page alone if it is there already.
 *
 * @param {HTMLElement} node
 * @param {string} text
 * @param {string} [title]
 */
function put(node, text, title = "") {
	if (node.textContent !== text) node.textContent = text;
	if (node.title !== title) node.title = title;
	node.hidden = !text;
}

/** One row of the table: made once per task, changed in place. */
class TaskRow {
	/**
	 * @param {number} number
	 * @param {(row: TaskRow) => void} onCancel
	 */
	constructor(number, onCancel) {
		this.number = number;
		/** @type {{id: string, at: number, isAnswered: boolean} | null} */
		this.pending = null;
		this.spawned_s = 0;
		this.element = make("tr", "row");
		/** @type {Record<string, HTMLElement>} */
		this.parts = {};
		this.cell("number", "td").textContent = String(number);
		this.cell("task", "th", "name", "coro").setAttribute("scope", "row");
		this.cell("state", "td", "badge");
		this.cell("age", "td");
		this.cell("spawned", "td");
		this.cell("waits", "td", "for", "at");
		this.button = make("button", "cancel", "Cancel");
		this.button.setAttribute("type", "button");
		this.button.addEventListener("click", () => onCancel(this));
		this.cell("action", "td").append(this.button);
	}

	/**
	 * @param {string} name
	 * @param {string} tag
	 * @param {string[]} parts Elements inside, one per line.
	 */
	cell(name, tag, ...parts) {
		let cell = make(tag, name);
		this.parts[name] = cell;
		for (let part of parts) cell.append((this.parts[part] = make("div", part)));
		this.element.append(cell);
		return cell;
	}

	/** @param {Row} row */
	update(row) {
		this.spawned_s = row.spawned_s;
		put(this.parts.name, row.name, row.name);
		put(this.parts.coro, row.coro === row.name ? "" : row.coro, row.coro);
		put(this.parts.badge, row.state);
		this.parts.badge.dataset.state = row.state;
		put(this.parts.spawned, row.cell ?? "–", row.spawn_site);
		put(this.parts.for, row.waits_for, row.waits_for);
		put(this.parts.at, row.waits_at, row.waits_at);
		this.button.setAttribute("aria-label", `Cancel task ${row.name}`);
	}

	/**
	 * @param {number} clock_s The kernel's clock.
	 * @param {boolean} isGone
	 */
	tick(clock_s, isGone) {
		put(this.parts.age, ageText(clock_s - this.spawned_s));
		let waited = this.pending ? performance.now() - this.pending.at : 0;
		if (this.pending?.isAnswered && waited > AGAIN_AFTER_MS) this.pending = null;
		let isQueued = this.pending && !this.pending.isAnswered && waited > QUEUED_AFTER_MS;
		put(this.button, isQueued ? "queued: the kernel is busy" : this.pending ? "cancelling…" : "Cancel");
		this.button.toggleAttribute("disabled", isGone);
		this.button.setAttribute("aria-busy", String(this.pending !== null));
	}
}

/** One view: what it shows, whether it can be seen, and when it last heard from the kernel. */
class View {
	/**
	 * @param {Model} model
	 * @param {HTMLElement} el
	 */
	constructor(model, el) {
		this.model = model;
		this.id = Math.random().toString(36).slice(2);
		this.requests = 0;
		/** @type {Map<number, TaskRow>} */
		this.rows = new Map();
		this.isVisible = this.isOnScreen = this.isGone = false;
		this.fault = "";
		this.notedAt = -Infinity;
		/** Kernel's clock minus ours, in seconds; null until the kernel has spoken to this view. */
		this.offset_s = /** @type {number | null} */ (null);
		this.heardAt = performance.now();
		({ clock_s: this.clock_s, taken_at: this.taken_at } = model.get("snapshot"));
		this.frame = this.ticker = this.lease = 0;
		this.build(el);
		this.listen();
		this.draw();
	}

	/** @param {HTMLElement} el */
	build(el) {
		this.panel = make("div", "panel");
		this.panel.tabIndex = -1;
		this.dot = make("span", "dot");
		this.condition = make("span", "condition");
		this.facts = make("span", "facts");
		this.live = make("span", "live");
		let head = make("div", "head");
		head.append(make("span", "title", "loopnb"), this.dot, this.condition, this.facts, this.live);
		this.table = make("table", "table");
		this.table.setAttribute("aria-label", "Live tasks");
		let titles = make("tr", "titles");
		for (let name of COLUMNS) titles.append(make("th", `column loopnb-column-${name.toLowerCase()}`, name));
		for (let title of titles.children) title.setAttribute("scope", "col");
		let header = make("thead", "thead");
		header.append(titles);
		this.body = make("tbody", "tbody");
		this.table.append(header, this.body);
		this.scroll = make("div", "scroll");
		this.scroll.append(this.table);
		this.empty = make("div", "empty");
		this.note = make("div", "note");
		this.note.setAttribute("role", "status");
		this.panel.append(head, this.scroll, this.empty, this.note);
		el.append(this.panel);
	}

	listen() {
		this.receive = this.receive.bind(this);
		this.schedule = this.schedule.bind(this);
		this.lose = this.lose.bind(this);
		this.look = this.look.bind(this);
		this.screen = this.screen.bind(this);
		this.model.on("msg:custom", this.receive);
		this.model.on("change:snapshot", this.schedule);
		this.model.on("comm_live_update", this.lose);
		document.addEventListener("visibilitychange", this.look);
		this.observer = new IntersectionObserver((entries) => {
			this.isOnScreen = entries[entries.length - 1].isIntersecting;
			this.look();
		});
		this.observer.observe(this.panel);
		window.addEventListener("keydown", this.screen, true);
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

	dispose() {
		this.model.off("msg:custom", this.receive);
		this.model.off("change:snapshot", this.schedule);
		this.model.off("comm_live_update", this.lose);
		document.removeEventListener("visibilitychange", this.look);
		window.removeEventListener("keydown", this.screen, true);
		this.observer.disconnect();
		this.isOnScreen = false;
		this.look();
		cancelAnimationFrame(this.frame);
		this.panel.remove();
	}

	/** Note whether the view is visible. Only meanwhile do the timers run, and does the kernel sample. */
	look() {
		let isVisible = this.isOnScreen && !document.hidden;
		if (isVisible === this.isVisible) return;
		this.isVisible = isVisible;
		clearInterval(this.ticker);
		clearInterval(this.lease);
		this.renew();
		if (!isVisible) return;
		this.heardAt = performance.now();
		this.ticker = setInterval(() => this.tick(), TICK_MS);
		this.lease = setInterval(() => this.renew(), LEASE_EVERY_MS);
		this.schedule();
	}

	renew() {
		this.send({ op: "visible", view: this.id, visible: this.isVisible });
	}

	/** The comm was lost or has come back. Only an answer of the kernel tells which. */
	lose() {
		this.isGone = true;
		this.renew();
		this.tick();
	}

	/** @param {Record<string, unknown>} content */
	send(content) {
		try {
			this.model.send(content);
		} catch {
			// The comm has been disposed: JupyterLab does that when the kernel restarts.
			this.isGone = true;
		}
	}

	/** @param {any} message */
	receive(message) {
		if (message.op === "ack") return this.acknowledge(message);
		if (message.op === "fault") {
			this.fault = message.text;
			return this.tick();
		}
		let { epoch, clock_s, taken_at } = message.state ?? message;
		this.isGone = epoch !== this.model.get("snapshot").epoch;
		if (this.isGone) return this.tick();
		this.heardAt = performance.now();
		this.taken_at = taken_at;
		let offset_s = clock_s - this.heardAt / 1000;
		// A message that was long under way makes the offset too small. So keep the largest offset, unless
		// a clock was changed by more than a second.
		let old = this.offset_s ?? -Infinity;
		if (offset_s > old || old - offset_s > 1) this.offset_s = offset_s;
		this.schedule();
	}

	/** @param {{id: string | null, ok: boolean, text: string}} message */
	acknowledge({ id, ok, text }) {
		if (id !== null && !id.startsWith(`${this.id}:`)) return;
		for (let row of this.rows.values()) {
			if (row.pending?.id !== id) continue;
			row.pending = ok ? { id, at: performance.now(), isAnswered: true } : null;
		}
		this.note.textContent = text;
		this.note.dataset.ok = String(ok);
		this.notedAt = performance.now();
		this.tick();
	}

	/** @param {TaskRow} row */
	cancel(row) {
		if (row.pending) return;
		row.pending = { id: `${this.id}:${++this.requests}`, at: performance.now(), isAnswered: false };
		this.send({ id: row.pending.id, op: "cancel", number: row.number });
		this.tick();
	}

	schedule() {
		this.frame ||= requestAnimationFrame(() => {
			this.frame = 0;
			this.draw();
		});
	}

	draw() {
		/** @type {State} */
		let { loop, tasks } = this.model.get("snapshot");
		this.dot.dataset.condition = loop.condition;
		put(this.condition, conditionText(loop), `loop #${loop.generation}, ${loop.kind}`);
		let count = (/** @type {number} */ n, /** @type {string} */ noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
		let parked = loop.parked ? ` · ${count(loop.parked, "stack")} parked` : "";
		put(this.facts, `${count(loop.tasks, "task")} · engine ${loop.engine}${parked}`);
		this.drawRows(tasks);
		let more = loop.tasks - this.rows.size;
		put(this.empty, loop.tasks === 0 ? "No live tasks" : more > 0 ? `and ${count(more, "younger task")}` : "");
		this.scroll.hidden = this.rows.size === 0;
		this.tick();
	}

	/** @param {Record<string, Row>} tasks */
	drawRows(tasks) {
		for (let [number, row] of this.rows) if (!tasks[number]) this.drop(row);
		let next = this.body.firstElementChild;
		for (let task of Object.values(tasks).sort((a, b) => a.number - b.number)) {
			let row = this.rows.get(task.number);
			if (!row) this.rows.set(task.number, (row = new TaskRow(task.number, (it) => this.cancel(it))));
			row.update(task);
			// A row in its right place is not touched: moving it would take the focus away.
			if (row.element === next) next = next.nextElementSibling;
			else this.body.insertBefore(row.element, next);
		}
	}

	/** @param {TaskRow} row */
	drop(row) {
		// A user at the keyboard goes on from the next button. With a mouse, the focus is left alone.
		let hadFocus = row.button.matches(":focus-visible");
		let neighbour = row.element.nextElementSibling ?? row.element.previousElementSibling;
		row.element.remove();
		this.rows.delete(row.number);
		if (!hadFocus) return;
		let button = /** @type {HTMLElement | null} */ (neighbour?.querySelector("button") ?? null);
		(button ?? this.panel).focus({ preventScroll: true });
	}

	/** Update the ages, as long as what is shown is known to be true. */
	tick() {
		let now = performance.now();
		let { isGone, fault, taken_at } = this;
		let silent_ms = this.isVisible ? now - this.heardAt : 0;
		let { kind, text } = liveness({ isGone, fault, heard: this.offset_s !== null, silent_ms, taken_at });
		if (kind === "live") this.clock_s = now / 1000 + (this.offset_s ?? 0);
		this.panel.dataset.live = kind;
		put(this.live, text);
		for (let row of this.rows.values()) row.tick(this.clock_s, kind === "gone");
		if (now - this.notedAt > NOTE_FOR_MS) this.note.textContent = "";
	}
}

/**
 * Draw one view.
 *
 * @param {{model: Model, el: HTMLElement}} context
 */
function render({ model, el }) {
	let view = new View(model, el);
	return () => view.dispose();
}

export default { initialize, render };

/**
 * The table of tasks: as many rows in the page as can be seen, one Tab stop, and rows that stay in place while
 * the pointer or the keyboard's focus is among them.
 */

import { make, makeButton, put, putAttribute, write } from "./dom.js";
import { Arrangement, columnsFor, misplaced, offsetFor, reachesFar, ROW_HEIGHT, rowsAt } from "./layout.js";
import { ageText, leftoverText, numberText, pendingText, rowCoro, rowName, rowWaits, spanText } from "./texts.js";

/**
 * @typedef {import("./protocol.js").Row} Row
 * @typedef {import("./protocol.js").Query} Query
 * @typedef {import("./protocol.js").Window} TaskWindow
 * @typedef {{id: string, at: number, isAnswered: boolean}} Pending A cancel that is under way.
 * @typedef {{ask(change: Partial<Query>): void, scrollTo(offset: number): void, cancel(row: Row): void, open(row: Row): void, leave(): void,
 *   find(): void, showCell(cell: string): void, hold(isHeld: boolean): void}} TableHost What the table asks of its view.
 * @typedef {{window: TaskWindow, block: import("./protocol.js").Block | null, query: Query, clock_s: number, isPaused: boolean, isGone: boolean,
 *   pending: Map<string, Pending>, ended: Map<string, string>, openKey: string}} TableFacts
 */

/** Above this many tasks, a click on "Cancel all" is confirmed by a second one. */
const CONFIRM_ABOVE = 10;
const CONFIRM_FOR_MS = 4_000;
/** The user has stopped scrolling when nothing has moved for so long. */
const CALM_MS = 150;

/** One row of the page. Where its task is scrolled away, it shows another one. */
class TableRow {
	/** @param {TaskTable} table */
	constructor(table) {
		this.table = table;
		/** @type {Row | null} */
		this.row = null;
		this.index = -1;
		this.isEnded = this.isBlocking = false;
		/** What it was drawn with. @type {unknown[]} */
		this.drawn = [];
		this.armedUntil = 0;
		this.element = make("div", "row", "", { role: "row", tabindex: "-1" });
		this.element.addEventListener("click", (event) => this.click(event));
		/** @type {Record<string, HTMLElement>} */
		this.parts = {};
		/** @type {HTMLButtonElement | null} */
		this.button = null;
	}

	clear() {
		this.element.replaceChildren();
		this.drawn = [];
		this.parts = {};
		this.button = null;
	}

	/** @param {import("./layout.js").Column[]} columns */
	layOut(columns) {
		this.clear();
		for (let { id } of columns) {
			let cell = make("div", id, "", { role: "gridcell" });
			this.parts[id] = cell;
			if (id === "state") this.add(cell, "mark", "word");
			if (id === "task") this.add(cell, "twisty", ...(columns[0].id === "state" ? [] : ["mark"]), "name", "leftover", "coro");
			if (id === "waits") this.add(cell, "for", "at");
			if (id === "cell") cell.append((this.parts.link = this.makeLink()));
			if (id === "action") cell.append((this.button = this.makeCancel()));
			this.element.append(cell);
		}
	}

	/**
	 * @param {HTMLElement} cell
	 * @param {string[]} names
	 */
	add(cell, ...names) {
		for (let name of names) cell.append((this.parts[name] = make("span", name)));
	}

	makeLink() {
		// Rows are one Tab stop together, so what is in them is for the pointer only.
		return makeButton("link", "", () => this.row?.cell && this.table.host.showCell(this.row.cell), { tabindex: "-1" });
	}

	makeCancel() {
		return makeButton("cancel", "Cancel", () => this.cancel(), { tabindex: "-1" });
	}

	/** @param {Event} event */
	click(event) {
		if (/** @type {Element} */ (event.target).closest("button") || !this.row) return;
		this.table.activate(this.index, this.row.key);
		this.table.host.open(this.row);
	}

	/** Cancel, or for many tasks ask for a second click. */
	cancel() {
		let { row, table } = this;
		if (!row || this.isEnded || table.facts.isGone || row.is_kernel || row.state in OUTCOMES || table.facts.pending.has(row.key)) return;
		if ((row.count ?? 1) > CONFIRM_ABOVE && performance.now() > this.armedUntil) {
			this.armedUntil = performance.now() + CONFIRM_FOR_MS;
			return this.tick(table.facts);
		}
		this.armedUntil = 0;
		table.host.cancel(row);
	}

	/**
	 * @param {import("./layout.js").Slot} slot
	 * @param {TableFacts} facts
	 */
	update({ index, key, row, isHeld }, facts) {
		this.place(index);
		let outcome = facts.ended.get(key);
		let isOpen = key !== "" && key === facts.openKey;
		// Most rows say what they have said. What changes with time alone is left to `tick`.
		let drawn = [key, row, isHeld, outcome, isOpen, facts.block, facts.query.tab];
		if (this.drawn.length && drawn.every((value, place) => value === this.drawn[place])) return;
		let isOther = row?.key !== this.row?.key;
		if (isOther) this.armedUntil = 0;
		this.row = row;
		this.isEnded = isHeld || outcome !== undefined;
		putAttribute(this.element, "data-key", key || null);
		putAttribute(this.element, "data-ended", this.isEnded ? "" : null);
		putAttribute(this.element, "data-depth", row?.depth ? String(row.depth) : null);
		putAttribute(this.element, "data-open", isOpen ? "" : null);
		putAttribute(this.element, "data-gap", row ? null : "");
		if (!row) this.clear();
		else if (!this.element.firstChild) this.layOut(this.table.columns);
		this.drawn = drawn;
		if (!row) return putAttribute(this.element, "data-state", null);
		this.isBlocking = !this.isEnded && isBlocking(row, facts.block);
		let state = outcome ?? (isHeld ? "moved" : this.isBlocking ? "blocking" : row.state);
		let isGroup = row.count !== undefined;
		putAttribute(this.element, "aria-level", String((row.depth ?? 0) + 1));
		putAttribute(this.element, "aria-expanded", isGroup ? String(Boolean(row.is_open)) : null);
		this.fill(row, state, facts);
		// Its ages stand still, so they are not those of the task that was here before.
		if (isOther && this.isEnded) this.writeAges("", "");
		this.tick(facts);
	}

	/**
	 * @param {Row} row
	 * @param {string} state
	 * @param {TableFacts} facts
	 */
	fill(row, state, facts) {
		let { parts } = this;
		let isFinished = facts.query.tab === "finished";
		let { block } = facts;
		let waits = this.isBlocking && block ? { first: `${block.call} at ${block.place}`, second: block.remedy } : rowWaits(row, isFinished);
		if (parts.word) put(parts.word, state);
		putAttribute(parts.mark, "data-state", state);
		putAttribute(this.element, "data-state", state);
		if (parts.mark) parts.mark.title = state;
		write(parts.twisty, row.count === undefined ? "" : row.is_open ? "▾" : "▸");
		put(parts.name, rowName(row), row.name);
		put(parts.leftover, leftoverText(row) && "left over", leftoverText(row));
		put(parts.coro, rowCoro(row), `${row.coro}\nspawned at ${row.spawn_site}`);
		if (parts.link) put(parts.link, row.cell ?? "", row.spawn_site);
		if (parts.busy) write(parts.busy, row.busy === null || row.busy === undefined ? "" : `${Math.round(row.busy * 100)} %`);
		if (!parts.waits) return;
		put(parts.for, waits.first);
		put(parts.at, waits.second);
		parts.waits.title = [waits.first, waits.second].filter(Boolean).join("\n");
	}

	/** @param {number} index */
	place(index) {
		if (index === this.index) return;
		this.index = index;
		this.element.style.transform = `translateY(${index * ROW_HEIGHT}px)`;
		this.element.setAttribute("aria-rowindex", String(index + 2));
	}

	/**
	 * @param {string} age
	 * @param {string} waited
	 */
	writeAges(age, waited) {
		if (this.parts.age) write(this.parts.age, age);
		if (this.parts.waited) write(this.parts.waited, waited);
	}

	/**
	 * Update what changes with time alone.
	 *
	 * @param {TableFacts} facts
	 * @param {boolean} [areAgesDue]
	 */
	tick({ clock_s, block, pending, isGone }, areAgesDue = true) {
		let { row, parts } = this;
		if (!row) return;
		if (this.button) this.writeButton(this.button, row, pending.get(row.key), isGone);
		if (!areAgesDue) return;
		let age = (/** @type {number | null | undefined} */ instant) =>
			instant === null || instant === undefined ? "" : ageText(clock_s - instant);
		if (!this.isEnded) {
			let since = this.isBlocking ? block?.since_s : (row.cancelling_since_s ?? row.waiting_since_s);
			this.writeAges(age(row.oldest_s ?? row.spawned_s), age(since));
		}
		if (parts.ended) write(parts.ended, typeof row.ended_s === "number" ? `${age(row.ended_s)} ago` : "");
		if (parts.took) write(parts.took, typeof row.duration_s === "number" ? spanText(row.duration_s) : "");
	}

	/**
	 * @param {HTMLButtonElement} button
	 * @param {Row} row
	 * @param {Pending | undefined} pending
	 * @param {boolean} isGone
	 */
	writeButton(button, row, pending, isGone) {
		let isGroup = row.count !== undefined;
		let isArmed = performance.now() <= this.armedUntil;
		let count = isArmed ? numberText(row.count ?? 1) : "";
		let text = isArmed ? `Cancel ${count}?` : isGroup ? "Cancel all" : "Cancel";
		if (pending) {
			let waited_ms = performance.now() - pending.at;
			text = pendingText({ isAnswered: pending.isAnswered, isBlocked: this.table.facts.block !== null, waited_ms });
		}
		put(button, this.isEnded || row.is_kernel ? "" : text);
		putAttribute(button, "data-armed", isArmed ? "" : null);
		putAttribute(button, "aria-busy", String(pending !== undefined));
		let label = isGroup ? `Cancel all ${rowName(row)}` : `Cancel task ${rowName(row)}`;
		putAttribute(button, "aria-label", isArmed ? `Really cancel ${count} tasks?` : label);
		if (button.disabled !== isGone) button.disabled = isGone;
	}
}

/**
 * @param {Row} row
 * @param {import("./protocol.js").Block | null} block
 * @returns {boolean} Whether it is this row's task that blocks the loop, or one of this group.
 */
function isBlocking(row, block) {
	if (!block) return false;
	return row.count === undefined ? row.key === `t${block.task}` : row.key === block.group;
}

/** @param {import("./layout.js").Slot} slot @returns {string} */
function nameOf({ key, index }) {
	return key || `gap ${index}`;
}

/** How a task can have ended. */
const OUTCOMES = { returned: 1, raised: 1, cancelled: 1, dropped: 1 };

export class TaskTable {
	/** @param {TableHost} host */
	constructor(host) {
		this.host = host;
		/** @type {Map<string, TableRow>} */
		this.rows = new Map();
		this.arrangement = new Arrangement();
		/** @type {import("./layout.js").Column[]} */
		this.columns = [];
		this.total = 0;
		/** The rows that are in the page. */
		this.range = { from: 0, to: 0 };
		this.activeIndex = 0;
		this.activeKey = "";
		this.hasPointer = this.wasHeld = false;
		/** Where the user has scrolled to, and the last step there. Pixels. */
		this.top = this.way = 0;
		this.scrolledAt = -Infinity;
		this.isOrdered = true;
		/** A row that is to have the focus as soon as it is there. */
		this.isAwaited = false;
		this.facts = /** @type {TableFacts} */ (/** @type {unknown} */ (null));
		this.element = make("div", "table", "", { role: "treegrid", "aria-label": "Live tasks" });
		this.header = make("div", "titles", "", { role: "row", "aria-rowindex": "1" });
		this.body = make("div", "rows", "", { role: "rowgroup" });
		this.scroll = make("div", "scroll", "", { tabindex: "-1" });
		this.scroll.append(this.header, this.body);
		this.element.append(this.scroll);
		this.scroll.addEventListener("scroll", () => this.scrolled(), { passive: true });
		this.scroll.addEventListener("keydown", (event) => this.key(event));
		this.scroll.addEventListener("pointerenter", () => this.point(true));
		this.scroll.addEventListener("pointerleave", () => this.point(false));
		this.scroll.addEventListener("focusout", () => requestAnimationFrame(() => this.draw()));
		this.scroll.addEventListener("focusin", (event) => this.noteFocus(event));
	}

	/** @param {boolean} isInside */
	point(isInside) {
		this.hasPointer = isInside;
		this.draw();
	}

	/** @param {FocusEvent} event */
	noteFocus(event) {
		this.noteHold();
		for (let row of this.rows.values()) {
			if (row.row && row.element === event.target) this.activate(row.index, row.row.key);
		}
	}

	/** @returns {boolean} */
	get isHeld() {
		if (this.facts?.isGone) return false;
		let focused = document.activeElement;
		return this.hasPointer || (this.body.contains(focused) && focused?.matches(":focus-visible") === true);
	}

	/** @returns {boolean} */
	get isMoving() {
		return performance.now() - this.scrolledAt < CALM_MS;
	}

	/** Tell the view when the rows begin to be held in place, and when no more. */
	noteHold() {
		let { isHeld } = this;
		if (isHeld !== this.wasHeld) this.host.hold((this.wasHeld = isHeld));
	}

	/** Forget which rows are held in place: the user has asked for another order. */
	release() {
		this.arrangement.release();
	}

	/** @param {TableFacts} facts */
	update(facts) {
		this.facts = facts;
		this.draw();
	}

	/**
	 * Update what changes with time alone. While the user scrolls, the ages wait for the timer: to write those of
	 * all rows with each message costs frames.
	 *
	 * @param {TableFacts} facts
	 * @param {boolean} isTimer
	 */
	tick(facts, isTimer) {
		this.facts = facts;
		for (let row of this.rows.values()) row.tick(facts, isTimer || !this.isMoving);
		this.putInOrder();
	}

	/** Fit the columns to the table's width. */
	resize() {
		if (!this.facts) return;
		let { query } = this.facts;
		let width = this.scroll.clientWidth;
		if (!width) return;
		let columns = columnsFor(width, query.tab);
		let is = columns.map(({ id, title }) => id + title).join();
		if (is !== this.columns.map(({ id, title }) => id + title).join()) {
			this.columns = columns;
			this.element.style.setProperty("--loopnb-columns", columns.map((column) => column.width).join(" "));
			this.buildHeader();
			for (let row of this.rows.values()) if (row.row) row.layOut(columns);
		}
		this.writeHeader();
	}

	buildHeader() {
		let had = this.header.contains(document.activeElement);
		this.header.replaceChildren();
		for (let { id, title, sort } of this.columns) {
			let cell = make("div", `column loopnb-column-${id}`, "", { role: "columnheader" });
			if (sort) cell.append(makeButton("sort", title, () => this.sort(sort), { tabindex: "-1", "data-sort": sort }));
			else cell.textContent = title;
			if (!title) cell.setAttribute("aria-label", "Actions");
			this.header.append(cell);
		}
		if (had) this.focusHeader(0);
	}

	writeHeader() {
		let { sort, desc } = this.facts.query;
		this.columns.forEach((column, index) => {
			let cell = this.header.children[index];
			// By age and the like, the kernel's first order begins with the greatest.
			let isDescending = desc !== ["age", "waited", "busy"].includes(column.sort);
			let order = column.sort !== sort ? "none" : isDescending ? "descending" : "ascending";
			putAttribute(cell, "aria-sort", column.sort ? order : null);
		});
	}

	/** @param {string} column */
	sort(column) {
		let { sort, desc } = this.facts.query;
		this.host.ask({ sort: column, desc: sort === column && !desc, offset: 0 });
	}

	/** @returns {{top: number, height: number, total: number}} What is seen of the rows. */
	get seen() {
		let { scrollTop: top, clientHeight } = this.scroll;
		return { top, height: Math.max(clientHeight - ROW_HEIGHT, ROW_HEIGHT), total: this.total };
	}

	/** Draw other rows, if those in the page are about to be left. */
	scrolled() {
		let { seen } = this;
		[this.way, this.top, this.scrolledAt] = [seen.top - this.top, seen.top, performance.now()];
		if (this.facts && this.columns.length && !reachesFar(this.range, seen)) this.drawRange();
	}

	draw() {
		if (!this.facts) return;
		this.noteHold();
		this.resize();
		// It is not in the page yet, or hidden.
		if (!this.columns.length) return;
		let { window, query } = this.facts;
		this.total = this.mode === "follow" ? window.total : Math.max(window.total, this.arrangement.total);
		let height = `${this.total * ROW_HEIGHT}px`;
		if (this.body.style.height !== height) this.body.style.height = height;
		putAttribute(this.element, "aria-rowcount", String(this.total + 1));
		putAttribute(this.element, "aria-label", query.tab === "live" ? "Live tasks" : "Finished tasks");
		this.drawRange();
	}

	/** @returns {"follow" | "hold" | "freeze"} */
	get mode() {
		return this.facts.isPaused ? "freeze" : this.isHeld ? "hold" : "follow";
	}

	/** Draw the rows that are seen, and ask for those that the kernel has not sent. */
	drawRange() {
		let { window, query } = this.facts;
		let { seen } = this;
		if (!reachesFar(this.range, seen)) this.range = rowsAt(seen, this.way);
		this.drawRows(this.arrangement.arrange(window, this.range, this.mode));
		let offset = offsetFor(this.range, { offset: query.offset, limit: query.limit, total: window.total }, this.way);
		if (offset !== query.offset) this.host.scrollTo(offset);
	}

	/** @param {import("./layout.js").Slot[]} slots */
	drawRows(slots) {
		let wanted = new Set(slots.map(nameOf));
		/** Rows that no slot needs. @type {TableRow[]} */
		let spare = [];
		for (let [name, row] of this.rows) {
			if (wanted.has(name)) continue;
			this.rows.delete(name);
			// The focus stays in the table, so that the next key goes on from here and does not reach the notebook.
			if (row.element.contains(document.activeElement)) this.scroll.focus({ preventScroll: true });
			spare.push(row);
		}
		for (let slot of slots) {
			let name = nameOf(slot);
			let row = this.rows.get(name);
			if (!row) this.rows.set(name, (row = spare.shift() ?? this.addRow()));
			row.update(slot, this.facts);
			if (slot.key && slot.key === this.activeKey) this.activeIndex = slot.index;
		}
		for (let row of spare) row.element.remove();
		this.isOrdered = false;
		this.putInOrder();
		this.rove();
	}

	addRow() {
		let row = new TableRow(this);
		this.body.append(row.element);
		return row;
	}

	/**
	 * Put the rows in the page in the order in which they are seen, for readers who hear them. To move one costs
	 * the browser as much as to make it, so that waits until the user has stopped scrolling.
	 */
	putInOrder() {
		if (this.isOrdered || this.isMoving) return;
		this.isOrdered = true;
		let rowOf = new Map([...this.rows.values()].map((row) => [/** @type {Element} */ (row.element), row]));
		let rows = [...this.body.children].map((element) => /** @type {TableRow} */ (rowOf.get(element)));
		let moved = misplaced(rows.map((row) => row.index));
		if (!moved.size) return;
		/** @type {Element | null} */
		let next = null;
		for (let row of rows.sort((a, b) => b.index - a.index)) {
			// Moving a row would take the focus away.
			let isMoved = moved.has(row.index) && !row.element.contains(document.activeElement);
			if (isMoved) this.body.insertBefore(row.element, next);
			next = row.element;
		}
	}

	/** Make the active row the Tab stop, and focus it if a key has asked for it. */
	rove() {
		let active = null;
		for (let row of this.rows.values()) {
			let isActive = row.index === this.activeIndex && row.row !== null;
			putAttribute(row.element, "tabindex", isActive ? "0" : "-1");
			if (isActive) active = row;
		}
		// Where the active row is out of sight, the table itself is the stop, and passes the focus on.
		putAttribute(this.scroll, "tabindex", active ? "-1" : "0");
		if (active?.row && !this.isAwaited && document.activeElement !== active.element) return;
		if (active?.row) this.activeKey = active.row.key;
		if (active && this.isAwaited) {
			this.isAwaited = false;
			active.element.focus({ preventScroll: true });
		}
	}

	/**
	 * @param {number} index
	 * @param {string} key
	 */
	activate(index, key) {
		this.activeIndex = index;
		this.activeKey = key;
		this.rove();
	}

	/** Focus the row with this index, or the last one there is. @param {number} index */
	go(index) {
		if (index < 0) return this.focusHeader(0);
		this.activeIndex = Math.max(Math.min(index, this.total - 1), 0);
		this.activeKey = "";
		let y = this.activeIndex * ROW_HEIGHT;
		let seen = this.scroll.clientHeight - ROW_HEIGHT;
		if (y < this.scroll.scrollTop) this.scroll.scrollTop = y;
		if (y + ROW_HEIGHT > this.scroll.scrollTop + seen) this.scroll.scrollTop = y + ROW_HEIGHT - seen;
		this.isAwaited = true;
		this.draw();
		// It is not there yet. The table keeps the focus for it.
		if (this.isAwaited) this.scroll.focus({ preventScroll: true });
	}

	/** @param {number} step */
	focusHeader(step) {
		let buttons = [...this.header.querySelectorAll("button")];
		let now = buttons.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
		buttons[Math.max(Math.min(now + step, buttons.length - 1), 0)]?.focus();
	}

	/** @param {KeyboardEvent} event */
	key(event) {
		if (event.ctrlKey || event.metaKey || event.altKey) return;
		let isHeader = this.header.contains(/** @type {Node} */ (event.target));
		if (!(isHeader ? this.headerKey(event.key) : this.rowKey(event.key))) return;
		event.preventDefault();
	}

	/** @param {string} key @returns {boolean} */
	headerKey(key) {
		if (key === "ArrowLeft") this.focusHeader(-1);
		else if (key === "ArrowRight") this.focusHeader(1);
		else if (key === "Home") this.focusHeader(-99);
		else if (key === "End") this.focusHeader(99);
		else if (key === "ArrowDown") this.go(0);
		else return this.otherKey(key);
		return true;
	}

	/** @param {string} key @returns {boolean} */
	rowKey(key) {
		let page = Math.max(Math.floor(this.scroll.clientHeight / ROW_HEIGHT) - 2, 1);
		let steps = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page };
		let active = [...this.rows.values()].find((row) => row.index === this.activeIndex);
		let row = active?.row ?? null;
		if (key in steps) {
			let to = this.activeIndex + steps[/** @type {keyof typeof steps} */ (key)];
			this.go(key === "PageUp" ? Math.max(to, 0) : to);
		} else if (key === "Home") this.go(0);
		else if (key === "End") this.go(this.total - 1);
		else if (key === "Enter" || key === " ") row && this.host.open(row);
		else if (key === "ArrowRight") row?.is_open === false && this.host.open(row);
		else if (key === "ArrowLeft") row && this.close(row);
		else if (key === "Delete") active?.cancel();
		else return this.otherKey(key);
		return true;
	}

	/** Close the row's group, or go to the group that it is in. @param {Row} row */
	close(row) {
		if (row.is_open) return this.host.open(row);
		if (!row.depth) return;
		let above = [...this.rows.values()].filter(({ index, row: other }) => index < this.activeIndex && other?.is_open);
		if (above.length) this.go(Math.max(...above.map(({ index }) => index)));
	}

	/** @param {string} key @returns {boolean} */
	otherKey(key) {
		if (key === "/") this.host.find();
		else if (key === "Escape") this.host.leave();
		else return false;
		return true;
	}
}

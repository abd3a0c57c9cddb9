/** Which rows and which columns of a table there is room for. Pure. */

/** Pixels. One line of text; the table's rows are all as high. */
export const ROW_HEIGHT = 32;
/** Rows above and below what can be seen, so that a quick turn of the wheel shows no gap. */
const OVERSCAN = 8;
/** Other rows are drawn when there are fewer than that, and while the user scrolls no more are left behind. */
const LEAST_OVERSCAN = 4;
/** No more rows than this are in the page. */
export const MAX_ROWS = 60;
/** Pixels. A higher table would need more rows than that to be full. */
export const MOST_HEIGHT = (MAX_ROWS - 2 * OVERSCAN) * ROW_HEIGHT;

/**
 * Return the range of rows that are to be in the page. Every new range costs the browser as much as several rows,
 * so while the user scrolls most of the rows that cannot be seen lie ahead.
 *
 * @param {{top: number, height: number, total: number}} scroll Pixels, pixels, rows.
 * @param {number} [way] Where the user scrolls to: above 0 is down, below 0 is up.
 * @returns {{from: number, to: number}} *to* is the first that is not.
 */
export function rowsAt({ top, height, total }, way = 0) {
	let { first, seen } = rowsSeen({ top, height });
	let more = Math.sign(way) * (OVERSCAN - LEAST_OVERSCAN);
	let to = Math.min(first + seen + OVERSCAN + more, total);
	return { from: Math.max(Math.min(first - OVERSCAN + more, to - seen), 0), to: Math.max(to, 0) };
}

/**
 * Return True if the rows that are in the page go on far enough above and below what is seen.
 *
 * @param {{from: number, to: number}} range
 * @param {{top: number, height: number, total: number}} scroll
 * @returns {boolean}
 */
export function reachesFar({ from, to }, { top, height, total }) {
	let { first, seen } = rowsSeen({ top, height });
	if (to > total) return false;
	return (from === 0 || first - from >= LEAST_OVERSCAN) && (to >= total || to - first - seen >= LEAST_OVERSCAN);
}

/** @param {{top: number, height: number}} scroll */
function rowsSeen({ top, height }) {
	let seen = Math.min(Math.ceil(height / ROW_HEIGHT) + 1, MAX_ROWS - 2 * OVERSCAN);
	return { first: Math.max(Math.floor(top / ROW_HEIGHT), 0), seen };
}

/**
 * Return the offset of the window to ask the kernel for; the one that there is if that will do. Most of a new
 * window lies in the direction in which the user scrolls, and it is asked for before its rows are needed.
 *
 * @param {{from: number, to: number}} range The rows on the screen.
 * @param {{offset: number, limit: number, total: number}} window What was asked for last.
 * @param {number} [way] Where the user scrolls to: above 0 is down, below 0 is up.
 * @returns {number}
 */
export function offsetFor({ from, to }, { offset, limit, total }, way = 0) {
	let spare = Math.max(limit - (to - from), 0);
	let behind = Math.min(way ? LEAST_OVERSCAN : OVERSCAN, spare);
	let ahead = way ? Math.min(LEAST_OVERSCAN, spare - behind) : 0;
	let first = Math.max(way < 0 ? from - ahead : from, 0);
	let last = way > 0 ? to + ahead : to;
	let isThere = first >= offset && (last <= offset + limit || offset + limit >= total);
	if (isThere) return offset;
	let [isBelow, isAbove] = [from >= offset && from < offset + limit, to > offset && to <= offset + limit];
	// The rows themselves are there already where only those ahead are not.
	if (isBelow && isAbove) [isBelow, isAbove] = [way > 0, way < 0];
	let wanted = isBelow ? from - behind : isAbove ? to + behind - limit : Math.floor((from + to - limit) / 2);
	return Math.max(Math.min(wanted, total - limit), 0);
}

/**
 * @typedef {{id: string, title: string, width: string, sort: string, worth: number, least: number}} Column
 *   *worth*: columns of least worth give way first. *least*: pixels that it takes at least.
 */

/** @type {Column[]} */
const LIVE = [
	{ id: "state", title: "State", width: "104px", sort: "state", worth: 5, least: 104 },
	// Where there is room for nothing else, it leaves the button its place.
	{ id: "task", title: "Task", width: "minmax(min(170px, 100% - 98px), 3fr)", sort: "name", worth: 9, least: 190 },
	{ id: "cell", title: "Cell", width: "66px", sort: "cell", worth: 4, least: 66 },
	{ id: "age", title: "Age", width: "92px", sort: "age", worth: 6, least: 92 },
	{ id: "waited", title: "In this wait", width: "96px", sort: "waited", worth: 3, least: 96 },
	{ id: "waits", title: "Waits for", width: "minmax(160px, 6fr)", sort: "waits_for", worth: 7, least: 200 },
	{ id: "busy", title: "Busy", width: "62px", sort: "busy", worth: 2, least: 62 },
	{ id: "action", title: "", width: "98px", sort: "", worth: 8, least: 98 },
];

/** @type {Column[]} */
const FINISHED = [
	{ id: "state", title: "Outcome", width: "104px", sort: "state", worth: 6, least: 104 },
	{ id: "task", title: "Task", width: "minmax(min(120px, 43%), 3fr)", sort: "name", worth: 9, least: 190 },
	{ id: "cell", title: "Cell", width: "66px", sort: "cell", worth: 4, least: 66 },
	{ id: "ended", title: "Ended", width: "110px", sort: "age", worth: 3, least: 110 },
	{ id: "took", title: "Took", width: "92px", sort: "waited", worth: 5, least: 92 },
	{ id: "waits", title: "Error", width: "minmax(min(160px, 57%), 5fr)", sort: "waits_for", worth: 7, least: 200 },
];

/**
 * Return the columns for which there is room, in their order. The worthiest get it.
 *
 * @param {number} width Of the table, in pixels.
 * @param {"live" | "finished"} tab
 * @returns {Column[]}
 */
export function columnsFor(width, tab) {
	let all = tab === "live" ? LIVE : FINISHED;
	let kept = new Set();
	let left = width;
	for (let column of [...all].sort((a, b) => b.worth - a.worth)) {
		// What has no room ends it: a column of less worth must not stay where a better one has gone. Task
		// and buttons are always there.
		if (left < column.least && kept.size >= 2) break;
		kept.add(column.id);
		left -= column.least;
	}
	return all.filter(({ id }) => kept.has(id));
}

/**
 * Return the fewest numbers that have to be moved so that all increase.
 *
 * @param {number[]} numbers No two are equal.
 * @returns {Set<number>}
 */
export function misplaced(numbers) {
	/** For each place, how many can stay up to there, and the place of the one before. @type {{kept: number, before: number}[]} */
	let chains = [];
	let longest = -1;
	numbers.forEach((number, place) => {
		let chain = { kept: 1, before: -1 };
		chains.forEach(({ kept }, before) => {
			if (numbers[before] < number && kept >= chain.kept) chain = { kept: kept + 1, before };
		});
		chains.push(chain);
		if (chain.kept > (chains[longest]?.kept ?? 0)) longest = place;
	});
	let moved = new Set(numbers);
	for (let place = longest; place >= 0; place = chains[place].before) moved.delete(numbers[place]);
	return moved;
}

/** @typedef {{index: number, key: string, row: import("./protocol.js").Row | null, isHeld: boolean}} Slot */

/**
 * Which row stands where. While rows are held, none moves and none vanishes, whatever the kernel sends.
 *
 * In mode "follow" the rows are where the kernel's window has them. In mode "hold" a row that is on the screen
 * stays where it is, and what it says goes on changing; one that has left the window stays as it was. In mode
 * "freeze" nothing changes at all.
 */
export class Arrangement {
	constructor() {
		/** @type {Map<number, string>} */
		this.places = new Map();
		/** The keys that have a place. @type {Set<string>} */
		this.taken = new Set();
		/** @type {Map<string, import("./protocol.js").Row>} */
		this.rows = new Map();
		/** The rows that the table has at least, so that no held one is cut off. */
		this.total = 0;
	}

	/** Forget what is held: the user has asked for another order. */
	release() {
		this.places.clear();
		this.taken.clear();
		this.rows.clear();
		this.total = 0;
	}

	/**
	 * @param {import("./protocol.js").Window} window
	 * @param {{from: number, to: number}} range
	 * @param {"follow" | "hold" | "freeze"} mode
	 * @returns {Slot[]} One for each row of the range; its key is "" where the kernel has not sent it yet.
	 */
	arrange(window, { from, to }, mode) {
		if (mode === "follow") this.release();
		let free = window.keys.map((key) => (this.taken.has(key) ? "" : key));
		let at = new Map(window.keys.map((key, place) => [key, place]));
		/** @type {Slot[]} */
		let slots = [];
		for (let index = from; index < to; index++) {
			let key = this.places.get(index) ?? this.next(free, at, index, window.offset);
			if (key) this.put(index, key);
			slots.push({ index, key, ...this.look(window, key, mode) });
		}
		return slots;
	}

	/**
	 * @param {number} index
	 * @param {string} key
	 */
	put(index, key) {
		this.places.set(index, key);
		this.taken.add(key);
		this.total = Math.max(this.total, index + 1);
	}

	/**
	 * Choose the row for a place that none holds: the one that comes after the row above it, or before the one
	 * below it. Held rows that have ended have shifted the kernel's places.
	 *
	 * @param {string[]} free The window's rows; "" for those that have a place.
	 * @param {Map<string, number>} at Their places in the window.
	 * @param {number} index
	 * @param {number} offset
	 */
	next(free, at, index, offset) {
		let above = at.get(this.places.get(index - 1) ?? "");
		let below = at.get(this.places.get(index + 1) ?? "");
		let place = index - offset;
		if (above !== undefined) place = above + 1;
		else if (below !== undefined) place = below - 1;
		let step = above === undefined && below !== undefined ? -1 : 1;
		while (free[place] === "") place += step;
		let key = free[place] ?? "";
		if (key) free[place] = "";
		return key;
	}

	/**
	 * @param {import("./protocol.js").Window} window
	 * @param {string} key
	 * @param {string} mode
	 */
	look(window, key, mode) {
		let now = window.rows[key];
		let old = this.rows.get(key);
		let row = (mode === "freeze" && old) || now || old || null;
		if (row && key) this.rows.set(key, row);
		return { row, isHeld: Boolean(key) && !now && mode !== "freeze" };
	}
}

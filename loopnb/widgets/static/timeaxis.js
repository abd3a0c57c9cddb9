/** Compute the timeline: where its bars are, and what is under the pointer. Pure. */

/**
 * @typedef {import("./protocol.js").Timeline} Timeline
 * @typedef {import("./protocol.js").Bar} Bar
 * @typedef {import("./protocol.js").Blocked} Blocked
 * @typedef {{x: number, y: number, width: number, height: number, lane: number, bar: Bar | null, block: Blocked | null}} Box
 * @typedef {{text: string, y: number, height: number, index: number, covered: number}} LaneBox
 */

/** Seconds that may be shown: the shortest of these that holds all bars, or else the last. */
const SPANS_S = [15, 30, 60, 120];
const BAR = 12;
const GAP = 3;
const LANE_GAP = 10;
/** A lane is at most this many bars high. Further bars that overlap are drawn on its last line. */
const MAX_LINES = 8;
export const AXIS = 22;

/**
 * Return how many seconds before now are shown.
 *
 * @param {Timeline} timeline
 * @param {number} now_s
 * @returns {number}
 */
export function spanOf(timeline, now_s) {
	let longest_s = SPANS_S[SPANS_S.length - 1];
	let begins = [...Object.values(timeline.bars), ...timeline.blocks]
		.filter(({ to_s }) => (to_s ?? now_s) >= now_s - longest_s)
		.map(({ from_s }) => from_s);
	let oldest_s = begins.reduce((oldest, from_s) => Math.max(oldest, now_s - from_s), 0);
	return SPANS_S.find((span_s) => span_s >= oldest_s) ?? longest_s;
}

/**
 * Return the marks of the axis, at round seconds before now.
 *
 * @param {number} width In pixels.
 * @param {number} span_s
 * @returns {{x: number, text: string}[]}
 */
export function ticks(width, span_s) {
	let step = [1, 5, 10, 15, 30, 60, 120].find((seconds) => (seconds / span_s) * width >= 70) ?? 2 * span_s;
	let marks = [];
	for (let ago = 0; ago <= span_s; ago += step) {
		marks.push({ x: width - (ago / span_s) * width, text: ago ? `−${ago} s` : "now" });
	}
	return marks;
}

/**
 * Lay the bars out: a lane per cell, and bars of a lane that overlap below each other.
 *
 * @param {Timeline} timeline
 * @param {number} now_s
 * @param {number} width In pixels.
 * @returns {{boxes: Box[], lanes: LaneBox[], blocks: Box[], height: number, span_s: number}}
 */
export function layOut(timeline, now_s, width) {
	let span_s = spanOf(timeline, now_s);
	let x = (/** @type {number} */ instant) => ((instant - now_s) / span_s + 1) * width;
	let span = (/** @type {number} */ from, /** @type {number | null} */ to) => {
		let left = Math.max(x(from), 0);
		return { x: left, width: Math.max(x(to ?? now_s) - left, 2) };
	};
	/** @type {Map<string, Bar[]>} */
	let byLane = new Map(timeline.lanes.map(({ lane }) => [lane, []]));
	for (let bar of Object.values(timeline.bars)) {
		if ((bar.to_s ?? now_s) < now_s - span_s) continue;
		let bars = byLane.get(bar.lane);
		if (bars) bars.push(bar);
		else byLane.set(bar.lane, [bar]);
	}
	/** @type {Box[]} */
	let boxes = [];
	/** @type {LaneBox[]} */
	let lanes = [];
	let y = AXIS;
	for (let [text, bars] of byLane) {
		if (!bars.length) continue;
		/** @type {number[]} Where each line is free again. */
		let ends = [];
		let covered = 0;
		for (let bar of bars.sort((a, b) => a.from_s - b.from_s || a.number - b.number)) {
			let line = ends.findIndex((end) => end <= bar.from_s);
			if (line < 0) {
				line = Math.min(ends.length, MAX_LINES - 1);
				if (line < ends.length) covered++;
			}
			ends[line] = Math.max(ends[line] ?? 0, bar.to_s ?? Infinity);
			let box = { ...span(bar.from_s, bar.to_s), y: y + line * (BAR + GAP), height: BAR };
			boxes.push({ ...box, lane: lanes.length, bar, block: null });
		}
		let height = ends.length * (BAR + GAP) - GAP;
		lanes.push({ text: text || "no cell", y, height, index: lanes.length, covered });
		y += height + LANE_GAP;
	}
	let blocks = timeline.blocks
		.filter((block) => (block.to_s ?? now_s) >= now_s - span_s)
		.map((block) => ({ ...span(block.from_s, block.to_s), y: AXIS, height: y - AXIS, lane: -1, bar: null, block }));
	return { boxes, lanes, blocks, height: y, span_s };
}

/**
 * Return what is at a point: a bar, or else a block of the loop.
 *
 * @param {{boxes: Box[], blocks: Box[]}} layout
 * @param {number} x
 * @param {number} y
 * @returns {Box | null}
 */
export function boxAt({ boxes, blocks }, x, y) {
	let is = (/** @type {Box} */ box) =>
		x >= box.x - 2 && x <= box.x + box.width + 2 && y >= box.y - 1 && y <= box.y + box.height + 1;
	// What is drawn last is on top.
	return boxes.findLast(is) ?? blocks.findLast(is) ?? null;
}

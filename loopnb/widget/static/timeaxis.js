/** The timeline as numbers: where its bars are, what is under the pointer, and its file. Pure. */

/**
 * @typedef {{lane: number, from_s: number, to_s: number | null, name: string, state: string}} Bar
 * @typedef {{from_s: number, to_s: number | null, text: string}} Blocked
 * @typedef {{seq: number, now_s: number, lanes: string[], bars: Record<string, Bar>, blocks: Blocked[]}} Timeline
 * @typedef {{x: number, y: number, width: number, height: number, bar: Bar | null, block: Blocked | null}} Box
 * @typedef {{text: string, y: number, height: number, lane: number}} LaneBox
 */

/** Seconds that are shown. */
export const SPAN_S = 120;
const BAR = 12;
const GAP = 3;
const LANE_GAP = 10;
/** A lane is at most this many bars high; what overlaps more is drawn on its last line. */
const MAX_LINES = 8;
export const AXIS = 22;

/**
 * Apply a message. Returns null when one was missed.
 *
 * @param {Timeline | null} timeline
 * @param {any} message
 * @returns {Timeline | null}
 */
export function applyTimeline(timeline, message) {
	let { base, seq, now_s, lanes, bars, gone = [], blocks } = message;
	if (base === null) return { seq, now_s, lanes, bars, blocks };
	if (!timeline || base !== timeline.seq) return null;
	let all = { ...timeline.bars, ...bars };
	for (let id of gone) delete all[id];
	return { seq, now_s, lanes: lanes ?? timeline.lanes, bars: all, blocks: blocks ?? timeline.blocks };
}

/**
 * Return the marks of the axis, at round seconds before now.
 *
 * @param {number} width In pixels.
 * @returns {{x: number, text: string}[]}
 */
export function ticks(width) {
	let step = [5, 10, 15, 30, 60].find((seconds) => (seconds / SPAN_S) * width >= 56) ?? 60;
	let marks = [];
	for (let ago = 0; ago <= SPAN_S; ago += step) {
		marks.push({ x: width - (ago / SPAN_S) * width, text: ago ? `−${ago} s` : "now" });
	}
	return marks;
}

/**
 * Lay the bars out: a lane per cell, and bars of a lane that overlap below each other.
 *
 * @param {Timeline} timeline
 * @param {number} now_s
 * @param {number} width In pixels.
 * @returns {{boxes: Box[], lanes: LaneBox[], blocks: Box[], height: number}}
 */
export function layOut(timeline, now_s, width) {
	let x = (/** @type {number} */ instant) => ((instant - now_s) / SPAN_S + 1) * width;
	let span = (/** @type {number} */ from, /** @type {number | null} */ to) => {
		let left = Math.max(x(from), 0);
		return { x: left, width: Math.max(x(to ?? now_s) - left, 2) };
	};
	/** @type {Map<number, Bar[]>} */
	let byLane = new Map();
	for (let bar of Object.values(timeline.bars)) {
		if ((bar.to_s ?? now_s) < now_s - SPAN_S) continue;
		let bars = byLane.get(bar.lane);
		if (bars) bars.push(bar);
		else byLane.set(bar.lane, [bar]);
	}
	/** @type {Box[]} */
	let boxes = [];
	/** @type {LaneBox[]} */
	let lanes = [];
	let y = AXIS;
	for (let lane of [...byLane.keys()].sort((a, b) => a - b)) {
		/** @type {number[]} Where each line is free again. */
		let ends = [];
		for (let bar of (byLane.get(lane) ?? []).sort((a, b) => a.from_s - b.from_s)) {
			let line = ends.findIndex((end) => end <= bar.from_s);
			if (line < 0) line = Math.min(ends.length, MAX_LINES - 1);
			ends[line] = Math.max(ends[line] ?? 0, bar.to_s ?? Infinity);
			let box = span(bar.from_s, bar.to_s);
			boxes.push({ ...box, y: y + line * (BAR + GAP), height: BAR, bar, block: null });
		}
		let height = ends.length * (BAR + GAP) - GAP;
		lanes.push({ text: timeline.lanes[lane] ?? "no cell", y, height, lane });
		y += height + LANE_GAP;
	}
	let blocks = timeline.blocks
		.filter((block) => (block.to_s ?? now_s) >= now_s - SPAN_S)
		.map((block) => ({ ...span(block.from_s, block.to_s), y: AXIS, height: y - AXIS, bar: null, block }));
	return { boxes, lanes, blocks, height: y };
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

/**
 * Return the timeline in the format of Chrome's tracing and of Perfetto.
 *
 * @param {Timeline} timeline
 * @param {number} now_s What still lives ends there.
 * @returns {{displayTimeUnit: "ms", traceEvents: Record<string, any>[]}}
 */
export function traceOf(timeline, now_s) {
	let us = (/** @type {number} */ seconds) => Math.round(seconds * 1e6);
	/** @type {Record<string, any>[]} */
	let events = [{ ph: "M", name: "process_name", pid: 1, tid: 0, args: { name: "loopnb" } }];
	let threads = ["blocked loop", ...timeline.lanes];
	threads.forEach((name, tid) => events.push({ ph: "M", name: "thread_name", pid: 1, tid, args: { name } }));
	// Complete events of one thread may not overlap halfway, and tasks do. So each is a pair of async events.
	for (let [id, { lane, from_s, to_s, name, state }] of Object.entries(timeline.bars)) {
		let event = { cat: "task", name: name || id, id, pid: 1, tid: lane + 1 };
		events.push({ ph: "b", ts: us(from_s), args: { state }, ...event });
		events.push({ ph: "e", ts: us(to_s ?? now_s), ...event });
	}
	for (let { from_s, to_s, text } of timeline.blocks) {
		let dur = us(to_s ?? now_s) - us(from_s);
		events.push({ ph: "X", cat: "blocked", name: text, ts: us(from_s), dur, pid: 1, tid: 0, args: {} });
	}
	return { displayTimeUnit: "ms", traceEvents: events };
}

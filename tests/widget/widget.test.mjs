/** The pure parts of the front end. The kernel's side is held to the same vectors. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

const STATIC = new URL("../../loopnb/widgets/static/", import.meta.url);
const VECTORS = new URL("vectors/", import.meta.url);

/** Load a module from its text, as anywidget does, whatever the nearest package.json says of *.js. */
async function load(/** @type {string} */ name) {
	let source = readFileSync(new URL(name, STATIC), "utf8");
	return import(`data:text/javascript,${encodeURIComponent(source)}`);
}

const read = (/** @type {string} */ name) => JSON.parse(readFileSync(new URL(name, VECTORS), "utf8"));
const { applyShared, applyTimeline, applyWindow } = await load("protocol.js");
const texts = await load("texts.js");
const layout = await load("layout.js");
const axis = await load("timeaxis.js");

const APPLY = { shared: applyShared, window: applyWindow, timeline: applyTimeline };

for (let [kind, apply] of Object.entries(APPLY)) {
	for (let { claim, before, messages, after } of read(`${kind}.json`)) {
		test(`${kind}: ${claim}`, () => {
			let untouched = structuredClone(before);
			assert.deepEqual(messages.reduce(apply, before), after);
			assert.deepEqual(before, untouched);
		});
	}
}

for (let { claim, kind, state, message } of read("gaps.json")) {
	test(`a gap is noticed: ${claim}`, () => assert.equal(APPLY[kind](state, message), null));
}

test("all vectors are read", () => {
	assert.deepEqual(readdirSync(VECTORS).sort(), ["ages.json", "gaps.json", "shared.json", "timeline.json", "window.json"]);
});

for (let [age_s, text] of read("ages.json")) {
	test(`an age of ${age_s} s is said as people do`, () => assert.equal(texts.ageText(age_s), text));
}

for (let [span_s, text] of [
	[0, "0.0 ms"],
	[0.0042, "4.2 ms"],
	[0.52, "520 ms"],
	[1.25, "1.2 s"],
	[61, "1 min 01 s"],
]) {
	test(`${span_s} s took ${text}`, () => assert.equal(texts.spanText(span_s), text));
}

const head = { text: "In[7] runs", since_s: 88, condition: "running" };
const block = { text: "In[7], line 3: time.sleep", since_s: 98.8 };

for (let [shared, said] of [
	[{ head, block: null }, { text: "In[7] runs", since: "12 s", condition: "running" }],
	[{ head: { ...head, since_s: null }, block: null }, { text: "In[7] runs", since: "", condition: "running" }],
	[{ head: { ...head, text: "idle" }, block: { text: "In[7] runs", is_standstill: true, since_s: 98.8 } }, { text: "In[7] runs", since: "1.2 s", condition: "running" }],
	[{ head, block }, { text: "blocked by In[7], line 3: time.sleep", since: "1.2 s", condition: "blocked" }],
]) {
	test(`the header says: ${said.text} ${said.since}`, () => assert.deepEqual(texts.loopText(shared, 100.01), said));
}

const facts = { ended: "", paused: false, heard: true, silent_ms: 0, taken_at: 0 };

for (let [change, kind, text] of [
	[{}, "live", /^live$/],
	[{ heard: false }, "waiting", /^as of /],
	[{ silent_ms: 4_900 }, "live", /^live$/],
	[{ silent_ms: 8_300 }, "stale", /^no answer for 8 s · as of /],
	[{ paused: true, silent_ms: 8_300 }, "paused", /^paused, as of /],
	[{ ended: "It was unloaded.", silent_ms: 8_300 }, "gone", /^as of /],
]) {
	test(`what is shown is said to be ${kind}: ${JSON.stringify(change)}`, () => {
		let said = texts.liveness({ ...facts, ...change });
		assert.equal(said.kind, kind);
		assert.match(said.text, text);
	});
}

for (let [row, text] of [
	[{ number: 7, name: "feed", coro: "f" }, "feed"],
	[{ number: 7, name: "", coro: "f" }, "task 7"],
	[{ count: 1312, name: "", coro: "fetch" }, "1,312 × fetch"],
	[{ count: 2, name: "feed", coro: "fetch" }, "2 × feed"],
]) {
	test(`a row is called ${text}`, () => assert.equal(texts.rowName(row), text));
}

for (let [pending, text] of [
	[{ isAnswered: false, isBlocked: false, waited_ms: 10 }, "Cancelling…"],
	[{ isAnswered: true, isBlocked: false, waited_ms: 10 }, "Cancelling…"],
	[{ isAnswered: true, isBlocked: true, waited_ms: 10 }, "Will cancel"],
	[{ isAnswered: false, isBlocked: true, waited_ms: 4_000 }, "Queued"],
]) {
	test(`a click that has no effect yet says ${text}: ${JSON.stringify(pending)}`, () => {
		assert.equal(texts.pendingText(pending), text);
	});
}

for (let [claim, row, first, second] of [
	["the user's line comes first", { line: "In[3], line 2: await get()", waits_at: "f In[3], line 2", waits_for: "Queue.get" }, "In[3], line 2: await get()", "Queue.get"],
	["its place if the text of the line is not known", { line: "", waits_at: "f In[3], line 2", waits_for: "sleep" }, "f In[3], line 2", "sleep"],
	["what it waits for if nobody's line is known", { waits_for: "a future" }, "a future", ""],
	["a refusal comes before the line", { note: "refused to cancel (twice)", waits_at: "f In[3], line 2", waits_for: "sleep" }, "refused to cancel (twice); f In[3], line 2", "sleep"],
	["a cleanup says where it is once", { state: "cancelling", note: "runs its finally at f In[3], line 8", line: "In[3], line 8: await g()", waits_for: "sleep" }, "runs its finally at f In[3], line 8", "sleep"],
	["leftovers have a chip instead", { note: "left over from an earlier run of its cell", waits_at: "f In[3], line 2", waits_for: "sleep" }, "f In[3], line 2", "sleep"],
]) {
	test(`what a row waits for: ${claim}`, () => assert.deepEqual(texts.rowWaits(row, false), { first, second }));
}

// The virtual list.

for (let [scroll, range] of [
	[{ top: 0, height: 320, total: 5 }, { from: 0, to: 5 }],
	[{ top: 0, height: 320, total: 10_000 }, { from: 0, to: 19 }],
	[{ top: 32 * 5_000, height: 320, total: 10_000 }, { from: 4_992, to: 5_019 }],
	[{ top: 32 * 9_990, height: 320, total: 10_000 }, { from: 9_982, to: 10_000 }],
	[{ top: 0, height: 320, total: 0 }, { from: 0, to: 0 }],
	// The rows have become fewer, and the page has not been drawn yet.
	[{ top: 32 * 9_990, height: 320, total: 20 }, { from: 9, to: 20 }],
]) {
	test(`rows that are in the page: ${JSON.stringify(scroll)}`, () => assert.deepEqual(layout.rowsAt(scroll), range));
}

test("most rows that cannot be seen lie where the user scrolls to", () => {
	let scroll = { top: 32 * 5_000, height: 320, total: 10_000 };
	assert.deepEqual(layout.rowsAt(scroll, 37), { from: 4_996, to: 5_023 });
	assert.deepEqual(layout.rowsAt(scroll, -37), { from: 4_988, to: 5_015 });
	assert.deepEqual(layout.rowsAt({ ...scroll, top: 32 }, -37), { from: 0, to: 16 });
	for (let way of [-1, 1]) assert.ok(layout.reachesFar(layout.rowsAt(scroll, way), scroll));
});

for (let [top, is] of [[32 * 50, true], [32 * 54, true], [32 * 55, false], [32 * 46, true], [32 * 45, false]]) {
	test(`rows 42 to 69 ${is ? "reach" : "do not reach"} far enough at ${top} pixels`, () => {
		assert.equal(layout.reachesFar({ from: 42, to: 69 }, { top, height: 320, total: 1_000 }), is);
	});
}

test("rows that reach to an end of all reach far enough", () => {
	assert.ok(layout.reachesFar({ from: 0, to: 19 }, { top: 64, height: 320, total: 1_000 }));
	assert.ok(layout.reachesFar({ from: 980, to: 1_000 }, { top: 32 * 990, height: 320, total: 1_000 }));
});

test("rows that go on after the last one do not reach far enough: they have become fewer", () => {
	assert.ok(!layout.reachesFar({ from: 980, to: 1_000 }, { top: 32 * 985, height: 320, total: 999 }));
});

test("there are never more than 60 rows in the page", () => {
	for (let way of [-1, 0, 1]) {
		for (let top = 0; top < 10_000; top += 77) {
			let { from, to } = layout.rowsAt({ top, height: 5_000, total: 10_000 }, way);
			assert.ok(to - from <= 60, `${to - from} rows at ${top}`);
		}
	}
});

for (let [numbers, moved] of [
	[[], []],
	[[3, 4, 5], []],
	[[6, 7, 3, 4, 5], [6, 7]],
	[[5, 6, 7, 3, 4], [3, 4]],
	[[1, 9, 2, 3], [9]],
	[[4, 5, 3], [3]],
]) {
	test(`of ${numbers.join() || "none"}, ${moved.join() || "none"} stand elsewhere`, () => {
		assert.deepEqual([...layout.misplaced(numbers)].sort(), moved);
	});
}

for (let [range, window, offset] of [
	[{ from: 0, to: 20 }, { offset: 0, limit: 60, total: 1_000 }, 0],
	[{ from: 50, to: 70 }, { offset: 0, limit: 60, total: 1_000 }, 42],
	[{ from: 399, to: 420 }, { offset: 400, limit: 60, total: 1_000 }, 368],
	[{ from: 500, to: 520 }, { offset: 0, limit: 60, total: 1_000 }, 480],
	[{ from: 0, to: 20 }, { offset: 500, limit: 60, total: 1_000 }, 0],
	[{ from: 985, to: 1_000 }, { offset: 0, limit: 60, total: 1_000 }, 940],
	[{ from: 45, to: 65 }, { offset: 10, limit: 60, total: 65 }, 10],
	[{ from: 0, to: 20 }, { offset: 30, limit: 60, total: 1_000 }, 0],
]) {
	test(`rows ${range.from} to ${range.to} are asked for from ${offset}`, () => {
		assert.equal(layout.offsetFor(range, window), offset);
	});
}

for (let [range, way, offset] of [
	[{ from: 120, to: 151 }, 37, 100],
	[{ from: 128, to: 157 }, 37, 124],
	[{ from: 132, to: 163 }, 37, 128],
	[{ from: 104, to: 135 }, -37, 100],
	[{ from: 103, to: 134 }, -37, 78],
	// The highest table has no rows to spare, and is full.
	[{ from: 104, to: 164 }, 37, 104],
	[{ from: 96, to: 156 }, -37, 96],
]) {
	test(`rows ${range.from} to ${range.to}, scrolled by ${way}, are asked for from ${offset}`, () => {
		assert.equal(layout.offsetFor(range, { offset: 100, limit: 60, total: 1_000 }, way), offset);
	});
}

const columnsAt = (/** @type {number} */ width, tab = "live") => layout.columnsFor(width, tab).map(({ id }) => id);

test("columns give way in order of worth", () => {
	assert.deepEqual(columnsAt(1200), ["state", "task", "cell", "age", "waited", "waits", "busy", "action"]);
	assert.deepEqual(columnsAt(700), ["state", "task", "age", "waits", "action"]);
	assert.deepEqual(columnsAt(320), ["task", "action"]);
	assert.deepEqual(columnsAt(200), ["task", "action"]);
	assert.deepEqual(columnsAt(390, "finished"), ["task", "waits"]);
	let before = columnsAt(2_000);
	for (let width = 2_000; width > 100; width -= 10) {
		let now = columnsAt(width);
		assert.ok(now.every((id) => before.includes(id)), `a column has come back at ${width}`);
		before = now;
	}
});

/** A window of rows named by their keys, from an offset on. */
function windowOf(/** @type {string} */ keys, offset = 0) {
	let rows = Object.fromEntries([...keys].map((key) => [key, { key }]));
	return { keys: [...keys], offset, rows, total: offset + keys.length };
}

function shown(arrangement, window, range, mode) {
	let slots = arrangement.arrange(window, range, mode);
	return slots.map(({ key, isHeld }) => (isHeld ? key.toUpperCase() : key || "-")).join("");
}

test("rows follow the kernel", () => {
	let rows = new layout.Arrangement();
	assert.equal(shown(rows, windowOf("abcd"), { from: 0, to: 4 }, "follow"), "abcd");
	assert.equal(shown(rows, windowOf("acd"), { from: 0, to: 3 }, "follow"), "acd");
	assert.equal(shown(rows, windowOf("cdef", 2), { from: 1, to: 7 }, "follow"), "-cdef-");
});

test("held rows neither move nor vanish", () => {
	let rows = new layout.Arrangement();
	let range = { from: 0, to: 4 };
	shown(rows, windowOf("abcd"), range, "hold");
	assert.equal(shown(rows, windowOf("acde"), range, "hold"), "aBcd");
	assert.equal(shown(rows, windowOf("dcae"), range, "hold"), "aBcd");
	assert.equal(shown(rows, windowOf(""), range, "hold"), "ABCD");
	assert.equal(rows.total, 4);
	assert.equal(shown(rows, windowOf("ace"), { from: 0, to: 3 }, "follow"), "ace");
});

test("a row that has ended does not hide the next one that is scrolled to", () => {
	let rows = new layout.Arrangement();
	shown(rows, windowOf("abcdefgh"), { from: 0, to: 4 }, "hold");
	assert.equal(shown(rows, windowOf("acdefgh"), { from: 0, to: 6 }, "hold"), "aBcdef");
	assert.equal(shown(rows, windowOf("xacdefgh"), { from: 0, to: 6 }, "hold"), "aBcdef");
});

test("rows above held ones are found, too", () => {
	let rows = new layout.Arrangement();
	shown(rows, windowOf("abcdefgh"), { from: 4, to: 8 }, "hold");
	assert.equal(shown(rows, windowOf("abcdfgh"), { from: 3, to: 8 }, "hold"), "dEfgh");
});

test("frozen rows say what they said", () => {
	let rows = new layout.Arrangement();
	let now = windowOf("ab");
	rows.arrange(now, { from: 0, to: 2 }, "freeze");
	let later = { ...now, rows: { a: { key: "a", state: "parked" } } };
	assert.deepEqual(rows.arrange(later, { from: 0, to: 2 }, "freeze"), [
		{ index: 0, key: "a", row: { key: "a" }, isHeld: false },
		{ index: 1, key: "b", row: { key: "b" }, isHeld: false },
	]);
	assert.equal(rows.arrange(later, { from: 0, to: 1 }, "follow")[0].row.state, "parked");
});

// The timeline.

const bar = (/** @type {string} */ lane, /** @type {number} */ from_s, /** @type {number | null} */ to_s) => ({
	lane, from_s, to_s, number: from_s, name: `${from_s}`, coro: "f", state: "waiting",
});

test("a lane for each cell, and bars that overlap are below each other", () => {
	let bars = { 1: bar("In[3]", 900, null), 2: bar("In[4]", 910, 930), 3: bar("In[4]", 920, 940), 4: bar("In[4]", 935, null) };
	let lanes = [{ lane: "In[3]", tasks: 1 }, { lane: "In[4]", tasks: 3 }];
	let { boxes, lanes: laid, height } = axis.layOut({ bars, lanes, blocks: [] }, 1_000, 1_200);
	assert.deepEqual(laid.map(({ text }) => text), ["In[3]", "In[4]"]);
	let lines = boxes.map(({ y }) => y);
	assert.equal(lines[1], lines[3]); // the first of In[4] has ended before its third begins
	assert.ok(lines[0] < lines[1] && lines[1] < lines[2] && lines[2] < height);
	let places = boxes.map(({ x, width }) => [Math.round(x), Math.round(width)]);
	assert.deepEqual(places, [[200, 1000], [300, 200], [400, 200], [550, 650]]);
});

test("what is older than two minutes is not drawn, and what reaches into them is cut", () => {
	let bars = { 1: bar("In[3]", 10, 20), 2: bar("In[3]", 10, 940) };
	let blocks = [{ from_s: 10, to_s: 20, text: "old" }, { from_s: 999, to_s: null, text: "now" }];
	let { boxes, blocks: laid } = axis.layOut({ bars, lanes: [], blocks }, 1_000, 1_200);
	assert.deepEqual(boxes.map(({ x, width }) => [x, width]), [[0, 600]]);
	assert.deepEqual(laid.map(({ block, width }) => [block.text, width]), [["now", 10]]);
});

for (let [from_s, span_s] of [[990, 15], [980, 30], [941, 60], [930, 120], [10, 120]]) {
	test(`a bar from ${1_000 - from_s} s ago is shown in ${span_s} s`, () => {
		assert.equal(axis.spanOf({ bars: { 1: bar("In[3]", from_s, null) }, blocks: [] }, 1_000), span_s);
	});
}

test("a thousand tasks at once do not make the lane endless", () => {
	let bars = Object.fromEntries(Array.from({ length: 1_000 }, (_, index) => [index, bar("In[3]", 950, null)]));
	let { height, lanes: [lane] } = axis.layOut({ bars, lanes: [], blocks: [] }, 1_000, 1_200);
	assert.ok(height < 200);
	assert.equal(lane.covered, 1_000 - 8); // it says so
});

test("a bar is found under the pointer, and a block where there is none", () => {
	let timeline = { bars: { 1: bar("In[3]", 900, null) }, lanes: [], blocks: [{ from_s: 940, to_s: 950, text: "slow" }] };
	let laid = axis.layOut(timeline, 1_000, 1_200);
	let [{ y }] = laid.boxes;
	assert.equal(axis.boxAt(laid, 700, y + 2).bar.name, "900");
	assert.equal(axis.boxAt(laid, 650, y + 30), null);
	assert.equal(axis.boxAt(laid, 650, y + 18).block.text, "slow");
	assert.equal(axis.boxAt(laid, 100, y + 2), null);
});

test("the axis has round numbers that do not touch", () => {
	for (let width of [50, 94, 120, 250, 600, 1_500]) {
		for (let span_s of [15, 30, 60, 120]) {
			let marks = axis.ticks(width, span_s);
			assert.equal(marks[0].text, "now");
			assert.ok(marks.length === 1 || marks[0].x - marks[1].x >= 60, `${width} px, ${span_s} s`);
		}
	}
});

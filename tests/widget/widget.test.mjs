/** The pure part of the front end; the kernel's side is held to the same ages.json and deltas.json. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const here = new URL(".", import.meta.url);
const read = (/** @type {string} */ name) => readFileSync(new URL(name, here), "utf8");

// As anywidget loads it: from its text, whatever the nearest package.json says of *.js.
const source = read("../../loopnb/widgets/static/widget.js");
const widget = await import(`data:text/javascript,${encodeURIComponent(source)}`);

const [first] = JSON.parse(read("deltas.json"));

for (let [age_s, text] of JSON.parse(read("vectors/ages.json"))) {
	test(`an age of ${age_s} s is said as people do`, () => assert.equal(widget.ageText(age_s), text));
}

for (let { claim, before, delta, after } of JSON.parse(read("deltas.json"))) {
	test(`a delta is applied: ${claim}`, () => {
		let untouched = structuredClone(before);
		assert.deepEqual(widget.apply(before, delta), after);
		assert.deepEqual(before, untouched);
	});
}

test("a gap is noticed", () => {
	assert.equal(widget.apply(first.before, { ...first.delta, base: 5, seq: 6 }), null);
});

test("another epoch is noticed", () => {
	assert.equal(widget.apply(first.before, { ...first.delta, epoch: "other" }), null);
});

test("a delta that is in the state already changes nothing", () => {
	assert.equal(widget.apply(first.after, first.delta), first.after);
});

const loop = { kind: "L", condition: "idle", detail: "", generation: 1, engine: "handoff", parked: 0, cell: null, tasks: 0 };

for (let [change, text] of [
	[{}, "idle"],
	[{ condition: "running", cell: "In[4]" }, "running, In[4] is executing"],
	[{ condition: "running" }, "running, a cell is executing"],
	[{ condition: "nested", cell: "In[4]" }, "running, In[4] waits in a nested run"],
	[{ condition: "set aside", detail: "set aside by In[4]:1" }, "set aside by In[4]:1"],
	[{ detail: "no nesting" }, "idle (no nesting)"],
]) {
	test(`the condition is one clause: ${text}`, () => {
		assert.equal(widget.conditionText({ ...loop, ...change }), text);
	});
}

const facts = { isGone: false, fault: "", heard: true, silent_ms: 0, taken_at: 0 };

for (let [change, kind, text] of [
	[{}, "live", /^live$/],
	[{ heard: false }, "waiting", /^as of /],
	[{ silent_ms: 5_900 }, "live", /^live$/],
	[{ silent_ms: 8_300 }, "stale", /^no answer for 8 s · as of /],
	[{ heard: false, silent_ms: 8_300 }, "stale", /^no answer for 8 s/],
	[{ isGone: true, silent_ms: 8_300 }, "gone", /^kernel gone · as of /],
	[{ fault: "ValueError: x", isGone: true }, "gone", /^stopped: ValueError: x · as of /],
]) {
	test(`what is shown is said to be ${kind}: ${JSON.stringify(change)}`, () => {
		let said = widget.liveness({ ...facts, ...change });
		assert.equal(said.kind, kind);
		assert.match(said.text, text);
	});
}

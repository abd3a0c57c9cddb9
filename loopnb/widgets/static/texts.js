/** Put into words what the view says. Pure. */

/** The kernel speaks every 2 s while a view is visible. After this long without a word, the view is stale. */
export const STALE_AFTER_MS = 5_000;

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
 * Say how long something took: as an age, but short times in milliseconds.
 *
 * @param {number} span_s
 * @returns {string}
 */
export function spanText(span_s) {
	return span_s < 1 ? `${Math.max(span_s * 1000, 0).toFixed(span_s < 0.01 ? 1 : 0)} ms` : ageText(span_s);
}

/**
 * @param {number} milliseconds
 * @returns {string}
 */
export function lagNumber(milliseconds) {
	return milliseconds < 10 ? milliseconds.toFixed(1) : String(Math.round(milliseconds));
}

/**
 * Say a time of day.
 *
 * @param {number} wall_s Seconds since 1970.
 * @returns {string}
 */
export function timeText(wall_s) {
	let time = new Date(wall_s * 1000);
	let two = (/** @type {number} */ value) => String(value).padStart(2, "0");
	return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

/** Made once: `toLocaleString` makes one in every call. */
const NUMBERS = new Intl.NumberFormat("en");

/**
 * @param {number} n
 * @returns {string} With commas: `10,000`.
 */
export function numberText(n) {
	return NUMBERS.format(n);
}

/**
 * @param {number} n
 * @param {string} noun
 * @returns {string}
 */
export function countText(n, noun) {
	return `${numberText(n)} ${noun}${n === 1 ? "" : "s"}`;
}

/**
 * Say what the loop does, and since when: `In[7] runs`, `12 s`.
 *
 * @param {import("./protocol.js").Shared} shared
 * @param {number} clock_s The kernel's clock, now.
 * @returns {{text: string, since: string, condition: string}}
 */
export function loopText({ head, block }, clock_s) {
	if (block?.is_standstill) {
		return { text: block.text, since: ageText(clock_s - block.since_s), condition: "running" };
	}
	if (block) {
		return { text: `blocked by ${block.text}`, since: ageText(clock_s - block.since_s), condition: "blocked" };
	}
	let since = head.since_s === null ? "" : ageText(clock_s - head.since_s);
	return { text: head.text, since, condition: head.condition };
}

/**
 * Tell whether the view is still true, and if not, as of when it was.
 *
 * @param {{ended: string, paused: boolean, heard: boolean, silent_ms: number,
 *   taken_at: number}} facts *ended*: why nothing will come any more ("" while something may).
 * @returns {{kind: "live" | "waiting" | "paused" | "stale" | "gone", text: string}}
 */
export function liveness({ ended, paused, heard, silent_ms, taken_at }) {
	let asOf = `as of ${timeText(taken_at)}`;
	if (ended) return { kind: "gone", text: asOf };
	if (paused) return { kind: "paused", text: `paused, ${asOf}` };
	if (silent_ms > STALE_AFTER_MS) {
		return { kind: "stale", text: `no answer for ${Math.floor(silent_ms / 1000)} s · ${asOf}` };
	}
	return heard ? { kind: "live", text: "live" } : { kind: "waiting", text: asOf };
}

/**
 * Say in one sentence that the kernel is another one now, or none.
 *
 * @param {"restart" | "end" | "unknown"} what
 * @param {number} wall_s When the page was told.
 * @returns {string}
 */
export function kernelGoneText(what, wall_s) {
	let at = timeText(wall_s).slice(0, 5);
	if (what === "end") return `The kernel was shut down at ${at}. Start it and run the cell again.`;
	let past = what === "restart" ? "before its restart at" : "that was lost at";
	return `This view belongs to the kernel ${past} ${at}. Run the cell again.`;
}

/**
 * @param {import("./protocol.js").Row} row
 * @returns {string} The row's name for people: a task's, or a group's with its count.
 */
export function rowName(row) {
	if (row.count !== undefined) return `${numberText(row.count)} × ${row.name || row.coro}`;
	return row.name.trim() ? row.name : `task ${row.number}`;
}

/**
 * @param {import("./protocol.js").Row} row
 * @returns {string} What the row's coroutine is called, unless its name says so.
 */
export function rowCoro(row) {
	return row.coro === row.name || (row.count !== undefined && !row.name) ? "" : row.coro;
}

/**
 * Say where a row waits, in the user's code, and for what; or what became of the task.
 *
 * @param {import("./protocol.js").Row} row
 * @param {boolean} isFinished
 * @returns {{first: string, second: string}}
 */
export function rowWaits(row, isFinished) {
	if (isFinished) return { first: row.error ?? "", second: row.waits_at ?? "" };
	let line = row.line || row.waits_at || "";
	// A note of a task that ends says where it is, too. Leftovers have a chip.
	let note = (row.note ?? "").split("; ").filter((part) => !part.startsWith("left over")).join("; ");
	if (row.state === "cancelling" && note.includes(" at ")) line = "";
	let first = [note, line].filter(Boolean).join("; ");
	return first ? { first, second: row.waits_for ?? "" } : { first: row.waits_for ?? "", second: "" };
}

/**
 * @param {import("./protocol.js").Row} row
 * @returns {string} From which cell the row's tasks are left over; "" if they are not.
 */
export function leftoverText(row) {
	return row.is_leftover ? `left over from an earlier run of ${row.cell ?? "its cell"}` : "";
}

/**
 * Return the words for a click that has no effect yet.
 *
 * @param {{isAnswered: boolean, isBlocked: boolean, waited_ms: number}} pending
 * @returns {string}
 */
export function pendingText({ isAnswered, isBlocked, waited_ms }) {
	if (isAnswered && isBlocked) return "Will cancel";
	return !isAnswered && waited_ms > 3_000 ? "Queued" : "Cancelling…";
}

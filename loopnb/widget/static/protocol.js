/**
 * The state of a view, and the messages of the kernel that change it. Pure.
 *
 * The law, tested in Python and here with the same vectors: `apply(old, diff(old, new))` is `new`.
 *
 * @typedef {{text: string, place: string, call: string, since_s: number, remedy: string,
 *   task: number | null}} Block The loop is blocked, since that instant.
 * @typedef {{severity: string, summary: string, remedy: string, more: number}} Finding
 * @typedef {{p50_ms: number, p99_ms: number, max_ms: number, recent: number[]}} Lag
 * @typedef {{kind: string, generation: number, engine: string, condition: string, text: string,
 *   since_s: number | null, cell: string | null, parked: number, counts: Record<string, number>,
 *   lag: Lag | null, block: Block | null, finding: Finding | null, leftovers: number,
 *   cells: string[]}} Head
 * @typedef {{epoch: string, seq: number, clock_s: number, taken_at: number, head: Head}} Shared
 *   What all views show.
 * @typedef {{key: string, depth?: number, number?: number, name: string, coro: string, state: string,
 *   spawned_s?: number, waiting_since_s?: number | null, cell?: string | null, spawn_site: string,
 *   waits_for?: string, waits_at?: string, parent?: number | null, busy?: number | null,
 *   steps?: number | null, note?: string, count?: number, oldest_s?: number, is_open?: boolean,
 *   duration_s?: number, ended_s?: number, error?: string}} Row
 *   A live task ("t12"), a group of them ("g..."), or a finished task ("f12").
 * @typedef {{tab: "live" | "finished", group: boolean, text: string, states: string[],
 *   cell: string | null, kernels: boolean, sort: string, desc: boolean, open: string[],
 *   offset: number, limit: number}} Query What a view wants to see.
 * @typedef {{query: Query, wseq: number, total: number, offset: number, keys: string[],
 *   rows: Record<string, Row>}} Window The rows of one view, those on its screen and around it.
 * @typedef {{shared: Shared, window: Window}} State
 */

/** @type {Query} */
export const FIRST_QUERY = {
	tab: "live", group: true, text: "", states: [], cell: null, kernels: false,
	sort: "age", desc: true, open: [], offset: 0, limit: 60,
};

/**
 * Apply a message. Returns null when one was missed: the caller asks for everything.
 *
 * @param {State} state
 * @param {any} message
 * @returns {State | null}
 */
export function apply(state, message) {
	if (message.op === "window") {
		let window = applyWindow(state.window, message);
		return window && (window === state.window ? state : { ...state, window });
	}
	let shared = applyShared(state.shared, message);
	return shared && (shared === state.shared ? state : { ...state, shared });
}

/**
 * @param {Shared} shared
 * @param {any} message
 * @returns {Shared | null}
 */
function applyShared(shared, message) {
	let { op, epoch, base, seq, clock_s, taken_at } = message;
	if (op === "head" && base === null) return { epoch, seq, clock_s, taken_at, head: message.head };
	if (epoch !== shared.epoch) return null;
	if (op === "beat") return seq === shared.seq ? { ...shared, clock_s, taken_at } : null;
	if (op === "block") return { ...shared, clock_s, taken_at, head: { ...shared.head, block: message.block } };
	if (op !== "head") return shared;
	// This state was read in the kernel after the message was made, and contains it already.
	if (seq <= shared.seq) return shared;
	if (base !== shared.seq) return null;
	return { epoch, seq, clock_s, taken_at, head: { ...shared.head, ...message.head } };
}

/**
 * @param {Window} window
 * @param {any} message
 * @returns {Window | null}
 */
function applyWindow(window, message) {
	let { wbase, wseq, total, offset, gone = [] } = message;
	let { query = window.query, keys = window.keys } = message;
	if (wbase === null) return { query, wseq, total, offset, keys, rows: message.rows };
	if (wbase !== window.wseq) return null;
	let rows = { ...window.rows, ...message.rows };
	for (let key of gone) delete rows[key];
	return { query, wseq, total, offset, keys, rows };
}

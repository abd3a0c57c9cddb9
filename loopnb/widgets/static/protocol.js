/**
 * The state of a view, and the messages of the kernel that change it. Pure.
 *
 * The kernel's side has the same functions (`loopnb/widgets/protocol.py`), and both are tested with the same
 * vectors. A function returns null when a message was missed: the caller asks for everything.
 *
 * @typedef {{text: string, is_standstill?: boolean, place: string, call: string, since_s: number, remedy: string,
 *   task: number | null, group: string | null}} Block What blocks the loop, since that instant.
 * @typedef {{severity: string, summary: string, remedy: string, more: number}} Finding
 * @typedef {{p50_ms: number, p99_ms: number, max_ms: number, recent: number[]}} Lag
 * @typedef {{kind: string, generation: number, engine: string, condition: string, text: string,
 *   since_s: number | null, cell: string | null, parked: number, tasks: number,
 *   counts: Record<string, number>, lag: Lag | null, finding: Finding | null, mended: string,
 *   leftovers: number, cells: string[]}} Head
 * @typedef {{epoch: string, seq: number, clock_s: number, taken_at: number, head: Head,
 *   block: Block | null}} Shared What all views show.
 * @typedef {{key: string, depth?: number, number?: number, name: string, coro: string, state: string,
 *   spawned_s?: number, waiting_since_s?: number | null, cancelling_since_s?: number | null,
 *   cell?: string | null, spawn_site: string, waits_for?: string, waits_at?: string, line?: string,
 *   parent?: number | null, busy?: number | null, note?: string,
 *   blocked_s?: number, is_leftover?: boolean, is_kernel?: boolean, count?: number, oldest_s?: number,
 *   is_open?: boolean, duration_s?: number | null, ended_s?: number | null, error?: string}} Row
 *   A live task ("t12"), a group of them ("g..."), or a finished task ("f12").
 * @typedef {{tab: "live" | "finished", group: boolean, text: string, states: string[],
 *   cell: string | null, kernels: boolean, sort: string, desc: boolean, open: string[],
 *   offset: number, limit: number}} Query What a view wants to see.
 * @typedef {{query: Query, wseq: number, total: number, offset: number, keys: string[],
 *   rows: Record<string, Row>}} Window The rows of one view, those on its screen and around it. A key's row
 *   may come in a later message than the key.
 * @typedef {{lane: string, number: number, name: string, coro: string, from_s: number, to_s: number | null,
 *   state: string}} Bar
 * @typedef {{from_s: number, to_s: number | null, text: string}} Blocked
 * @typedef {{tseq: number, now_s: number, lanes: {lane: string, tasks: number}[],
 *   bars: Record<string, Bar>, blocks: Blocked[]}} Timeline
 */

/** @type {Query} */
export const FIRST_QUERY = {
	tab: "live", group: true, text: "", states: [], cell: null, kernels: false,
	sort: "age", desc: false, open: [], offset: 0, limit: 60,
};

/**
 * A message from the loop (`head`, `beat`) means that the loop turns, so nothing blocks it. A `block` comes
 * from another thread, so its number may be an older one. If that ends, the loop has done nothing else for
 * longer, whatever the header said before.
 *
 * @param {Shared} shared
 * @param {any} message
 * @returns {Shared | null}
 */
export function applyShared(shared, message) {
	let { op, epoch, base, seq, clock_s, taken_at } = message;
	if (epoch !== shared.epoch) return null;
	if (op === "block") {
		let isOver = message.block === null && shared.head.cell === null;
		let head = isOver ? { ...shared.head, since_s: clock_s } : shared.head;
		return { ...shared, clock_s, taken_at, head, block: message.block };
	}
	if (shared.seq !== (op === "head" ? base : seq)) return null;
	let head = op === "head" ? { ...shared.head, ...message.head } : shared.head;
	return { epoch, seq, clock_s, taken_at, head, block: null };
}

/**
 * @param {Window | null} window
 * @param {any} message
 * @returns {Window | null}
 */
export function applyWindow(window, message) {
	let { wbase, wseq, total, offset } = message;
	if (wbase === null) return { query: message.query, wseq, total, offset, keys: message.keys, rows: message.rows };
	if (!window || wbase !== window.wseq) return null;
	let { query, keys } = { ...window, ...message };
	return { query, wseq, total, offset, keys, rows: merged(window.rows, message.rows, message.gone) };
}

/**
 * @param {Timeline | null} timeline
 * @param {any} message
 * @returns {Timeline | null}
 */
export function applyTimeline(timeline, message) {
	let { base, tseq, now_s, lanes, bars, blocks } = message;
	if (base === null) return { tseq, now_s, lanes, bars, blocks };
	if (!timeline || base !== timeline.tseq) return null;
	return {
		tseq,
		now_s,
		lanes: lanes ?? timeline.lanes,
		bars: merged(timeline.bars, bars, message.gone),
		blocks: blocks ?? timeline.blocks,
	};
}

/**
 * @template T
 * @param {Record<string, T>} old
 * @param {Record<string, T>} changed
 * @param {string[]} gone
 * @returns {Record<string, T>}
 */
function merged(old, changed, gone) {
	let all = { ...old };
	for (let key of gone) delete all[key];
	return Object.assign(all, changed);
}

/** Draw the top of a view: what the loop does, counts of tasks, how late the loop is, and what to do. */

import { make, makeButton, put, putAttribute } from "./dom.js";
import { countText, lagNumber, loopText, numberText } from "./texts.js";

/**
 * @typedef {import("./protocol.js").Shared} Shared
 * @typedef {{filter(state: string): void, cancelLeftovers(): void, showTask(number: number): void}} HeaderHost
 */

const LIVE_STATES = ["waiting", "ready", "running", "parked", "cancelling"];
const ENDED_STATES = ["failed", "finished"];
const SPARK = { width: 120, height: 18 };

export class Header {
	/** @param {HeaderHost} host */
	constructor(host) {
		this.host = host;
		this.element = make("div", "head");
		this.dot = make("span", "dot", "", { "aria-hidden": "true" });
		this.condition = make("span", "condition");
		this.since = make("span", "since");
		this.live = make("span", "live");
		let first = make("div", "now");
		first.append(make("span", "title", "loopnb"), this.dot, this.condition, this.since, this.live);
		this.remedy = make("div", "remedy");
		let second = make("div", "facts");
		this.counts = make("div", "counts", "", { role: "group", "aria-label": "Filter by state" });
		/** @type {Record<string, HTMLButtonElement>} */
		this.chips = {};
		for (let state of [...LIVE_STATES, ...ENDED_STATES]) this.counts.append((this.chips[state] = this.makeChip(state)));
		this.leftovers = makeButton("leftovers", "", () => host.cancelLeftovers());
		this.lag = make("div", "lag");
		this.lagText = make("span", "lag-text");
		this.spark = make("canvas", "spark", "", { "aria-hidden": "true" });
		this.lag.append(this.lagText, this.spark);
		second.append(this.counts, this.leftovers, this.lag);
		this.finding = make("div", "finding");
		this.mended = make("div", "mended");
		// What is always there comes first: where the header may not grow, whole lines at its end are left out.
		this.element.append(first, second, this.remedy, this.finding, this.mended);
		/** @type {number[]} */
		this.drawn = [];
	}

	/** @param {string} state */
	makeChip(state) {
		let chip = makeButton("chip", "", () => this.host.filter(state), { "data-state": state, "aria-pressed": "false" });
		chip.append(make("span", "mark", "", { "data-state": state, "aria-hidden": "true" }), make("span", "count"));
		return chip;
	}

	/**
	 * @param {Shared} shared
	 * @param {number} clock_s
	 * @param {{pressed: string, isGone: boolean}} how *pressed*: the state that the table is filtered by.
	 */
	update(shared, clock_s, { pressed, isGone }) {
		let { head } = shared;
		for (let [state, chip] of Object.entries(this.chips)) {
			let count = head.counts[state] ?? 0;
			let text = `${numberText(count)} ${state}`;
			put(/** @type {HTMLElement} */ (chip.lastElementChild), text);
			let isPressed = state === pressed;
			chip.hidden = !count && !isPressed;
			putAttribute(chip, "aria-pressed", String(isPressed));
		}
		let many = head.leftovers;
		put(this.leftovers, many ? `Cancel ${countText(many, "leftover")}` : "", "Tasks left over from earlier runs of their cells");
		this.leftovers.disabled = isGone;
		this.writeLag(head.lag);
		this.writeFinding(head.finding);
		put(this.mended, head.mended);
		this.tick(shared, clock_s, isGone);
	}

	/**
	 * @param {Shared} shared
	 * @param {number} clock_s
	 * @param {boolean} isGone
	 */
	tick(shared, clock_s, isGone) {
		let { head, block } = shared;
		let { text, since, condition } = loopText(shared, clock_s);
		putAttribute(this.element, "data-condition", isGone ? "gone" : condition);
		let engine = `loop #${head.generation}, ${head.kind}, engine ${head.engine}`;
		put(this.condition, text, engine);
		put(this.since, since);
		put(this.remedy, block?.remedy ?? "");
	}

	/** @param {import("./protocol.js").Lag | null} lag */
	writeLag(lag) {
		this.lag.hidden = !lag;
		if (!lag) return;
		let [p50, p99, max] = [lag.p50_ms, lag.p99_ms, lag.max_ms].map(lagNumber);
		put(this.lagText, `late by ${p50} / ${p99} / ${max} ms`, "How late the loop runs its callbacks: p50 / p99 / max");
		this.drawSpark(lag.recent);
	}

	/**
	 * Draw the last minute. The scale is logarithmic, from 1 ms to 1 s, so that a block does not flatten the
	 * rest.
	 *
	 * @param {number[]} recent
	 */
	drawSpark(recent) {
		if (recent === this.drawn) return;
		this.drawn = recent;
		let { width, height } = SPARK;
		let scale = devicePixelRatio || 1;
		let { spark } = this;
		if (spark.width !== width * scale) [spark.width, spark.height] = [width * scale, height * scale];
		let pen = spark.getContext("2d");
		if (!pen) return;
		pen.setTransform(scale, 0, 0, scale, 0, 0);
		pen.clearRect(0, 0, width, height);
		pen.fillStyle = getComputedStyle(spark).color;
		recent.forEach((late_ms, index) => {
			let share = Math.min(Math.log10(Math.max(late_ms, 1)) / 3, 1);
			let tall = 1 + share * (height - 1);
			pen.fillRect(width - (recent.length - index) * 2, height - tall, 1.5, tall);
		});
	}

	/** @param {import("./protocol.js").Finding | null} finding */
	writeFinding(finding) {
		putAttribute(this.finding, "data-severity", finding?.severity ?? null);
		if (!finding) return put(this.finding, "");
		let more = finding.more ? ` (${finding.more} more: %loopnb doctor)` : "";
		put(this.finding, `${finding.summary} ${finding.remedy}${more}`);
	}

	/** @param {{kind: string, text: string}} live */
	writeLive({ kind, text }) {
		putAttribute(this.live, "data-live", kind);
		put(this.live, text);
	}
}

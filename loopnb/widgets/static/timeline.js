/** The timeline of the last two minutes, drawn on a canvas. */

import { make, makeButton, put } from "./dom.js";
import { ageText, countText } from "./texts.js";
import { applyTimeline } from "./protocol.js";
import { boxAt, layOut, ticks } from "./timeaxis.js";

/** @typedef {import("./protocol.js").Timeline} Timeline */

const LABELS = 64;
const PAD = 8;
/** Hues of the lanes, far apart for neighbours. */
const HUES = [212, 28, 140, 282, 190, 54, 330, 96];

export class TimelinePane {
	/** @param {{askTrace(): void, resync(): void}} host */
	constructor(host) {
		this.host = host;
		/** @type {Timeline | null} */
		this.timeline = null;
		this.clock_s = 0;
		/** @type {ReturnType<typeof layOut> | null} */
		this.layout = null;
		this.element = make("div", "timeline");
		this.canvas = make("canvas", "canvas", "", { role: "img" });
		this.hover = make("div", "hover");
		this.hover.hidden = true;
		this.empty = make("div", "muted", "Asking the kernel…");
		let row = make("div", "kinds");
		this.export = makeButton("export", "Export", () => host.askTrace(), { title: "Save as a trace for Perfetto or chrome://tracing" });
		row.append(
			this.export,
			make("span", "muted", "A lane for each cell; blocks of the loop are red"),
		);
		this.box = make("div", "canvas-box");
		this.box.append(this.canvas, this.hover);
		this.probe = make("span", "probe", "", { "aria-hidden": "true" });
		this.element.append(row, this.empty, this.box, this.probe);
		this.canvas.addEventListener("pointermove", (event) => this.point(event));
		this.canvas.addEventListener("pointerleave", () => (this.hover.hidden = true));
	}

	/** @param {any} message */
	receive(message) {
		let next = applyTimeline(this.timeline, message);
		if (!next) return this.host.resync();
		this.timeline = next;
	}

	/** @param {number} clock_s */
	draw(clock_s) {
		let { timeline, canvas } = this;
		this.clock_s = clock_s;
		this.empty.hidden = timeline !== null;
		this.box.hidden = timeline === null;
		let width = this.box.clientWidth - LABELS - 2 * PAD;
		if (!timeline || width < 40) return;
		let layout = (this.layout = layOut(timeline, clock_s, width));
		let bars = Object.keys(timeline.bars).length;
		canvas.setAttribute("aria-label", `Timeline of the last ${layout.span_s} seconds: ${countText(bars, "task")} in ${countText(layout.lanes.length, "lane")}, the loop was blocked ${countText(timeline.blocks.length, "time")}`);
		let scale = devicePixelRatio || 1;
		let [full, height] = [this.box.clientWidth, Math.max(layout.height, 60)];
		if (canvas.width !== Math.round(full * scale) || canvas.height !== Math.round(height * scale)) {
			[canvas.width, canvas.height] = [Math.round(full * scale), Math.round(height * scale)];
			[canvas.style.width, canvas.style.height] = [`${full}px`, `${height}px`];
		}
		let pen = canvas.getContext("2d");
		if (!pen) return;
		pen.setTransform(scale, 0, 0, scale, 0, 0);
		pen.clearRect(0, 0, full, height);
		this.paint(pen, layout, width, height);
	}

	/**
	 * @param {CanvasRenderingContext2D} pen
	 * @param {ReturnType<typeof layOut>} layout
	 * @param {number} width
	 * @param {number} height
	 */
	paint(pen, layout, width, height) {
		let style = getComputedStyle(this.element);
		let [text, line, bad] = [style.color, this.colorOf("line"), this.colorOf("bad")];
		let isDark = isBright(text);
		pen.font = `11px ${style.fontFamily}`;
		pen.textBaseline = "middle";
		pen.translate(LABELS + PAD, 0);
		for (let { x, text: label } of ticks(width, layout.span_s)) {
			pen.fillStyle = text;
			pen.textAlign = x > width - 10 ? "right" : x < 30 ? "left" : "center";
			pen.fillText(label, x, 8);
			pen.fillStyle = line;
			pen.fillRect(Math.round(x) - 0.5, 17, 1, height - 17);
		}
		pen.fillStyle = bad;
		for (let block of layout.blocks) {
			pen.globalAlpha = 0.28;
			pen.fillRect(block.x, block.y, block.width, block.height);
			pen.globalAlpha = 1;
			pen.fillRect(block.x, block.y - 5, block.width, 4);
		}
		for (let box of layout.boxes) {
			pen.fillStyle = laneColor(box.lane, isDark);
			pen.fillRect(box.x, box.y, box.width, box.height);
			if (box.bar?.state === "raised") {
				pen.fillStyle = bad;
				pen.fillRect(box.x + box.width - 3, box.y, 3, box.height);
			}
			this.label(pen, box, isDark ? "#111" : "#fff");
		}
		pen.textAlign = "right";
		pen.fillStyle = text;
		for (let { text: label, y, height: tall, covered } of layout.lanes) {
			pen.fillText(label, -PAD, y + tall / 2, LABELS - 4);
			if (covered) pen.fillText(`+ ${covered.toLocaleString("en")}`, -PAD, y + tall - 6, LABELS - 4);
		}
	}

	/**
	 * @param {CanvasRenderingContext2D} pen
	 * @param {import("./timeaxis.js").Box} box
	 * @param {string} color
	 */
	label(pen, box, color) {
		if (box.width < 60 || !box.bar) return;
		pen.fillStyle = color;
		pen.textAlign = "left";
		pen.save();
		pen.beginPath();
		pen.rect(box.x, box.y, box.width - 4, box.height);
		pen.clip();
		pen.fillText(box.bar.name || box.bar.coro, box.x + 4, box.y + box.height / 2 + 0.5);
		pen.restore();
	}

	/** @param {string} name @returns {string} The colour as the canvas understands it. */
	colorOf(name) {
		this.probe.style.color = `var(--loopnb-${name})`;
		return getComputedStyle(this.probe).color;
	}

	/** @param {PointerEvent} event */
	point(event) {
		let [x, y] = [event.offsetX - LABELS - PAD, event.offsetY];
		let box = this.layout && boxAt(this.layout, x, y);
		put(this.hover, box ? this.describe(box) : "");
		let [width, height] = [this.hover.offsetWidth, this.hover.offsetHeight];
		let bottom = this.box.scrollTop + this.box.clientHeight;
		let isAbove = event.offsetY + 16 + height > bottom;
		this.hover.style.left = `${Math.max(Math.min(event.offsetX + 12, this.box.clientWidth - width), 0)}px`;
		this.hover.style.top = `${isAbove ? Math.max(event.offsetY - 8 - height, 0) : event.offsetY + 16}px`;
	}

	/** @param {import("./timeaxis.js").Box} box */
	describe({ bar, block }) {
		let clock_s = this.clock_s;
		if (block) return `The loop was blocked for ${ageText((block.to_s ?? clock_s) - block.from_s)}: ${block.text}`;
		if (!bar) return "";
		let lane = bar.lane ? `, ${bar.lane}` : "";
		return `${bar.name || bar.coro}${lane}: ${bar.state}, ${ageText((bar.to_s ?? clock_s) - bar.from_s)}`;
	}
}

/**
 * @param {number} lane
 * @param {boolean} isDark The ground is dark.
 */
function laneColor(lane, isDark) {
	return `hsl(${HUES[lane % HUES.length]} 58% ${isDark ? 68 : 30}%)`;
}

/**
 * @param {string} color As `getComputedStyle` gives it: `rgb(0 to 255)`, or `color(srgb 0 to 1)`.
 * @returns {boolean}
 */
function isBright(color) {
	let parts = (color.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number);
	let sum = parts.reduce((all, part) => all + part, 0);
	return sum > (color.startsWith("rgb") ? 382 : 1.5);
}

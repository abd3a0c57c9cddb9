/**
 * Stands in for the kernel and for anywidget on a plain page: a model whose messages it answers from a list of
 * tasks. It knows enough of the protocol to try a view with; the real kernel's side has tests of its own.
 */
export class FakeKernel {
	/** @param {any[]} tasks Rows, of which only `number` is needed. */
	constructor(tasks = []) {
		this.heard = [];
		this.listeners = {};
		this.seqs = {};
		this.queries = {};
		this.clock_s = 1000;
		this.began = performance.now();
		this.finished = [];
		this.isSilent = false;
		this.head = {
			kind: "_UnixSelectorEventLoop", generation: 1, engine: "handoff", condition: "idle", text: "idle",
			since_s: this.now - 12, cell: null, parked: 0, tasks: 0, counts: {}, lag: null, finding: null, mended: "",
			leftovers: 0, cells: ["In[3]", "In[4]"],
		};
		this.seq = 0;
		this.block = null;
		this.options = { height: null, group: true };
		this.tasks = tasks.map((task) => this.row(task));
		this.count();
		this.query = { tab: "live", group: true, text: "", states: [], cell: null, kernels: false, sort: "age", desc: false, open: [], offset: 0, limit: 60 };
	}

	get now() {
		return this.clock_s + (performance.now() - this.began) / 1000;
	}

	row(task) {
		return {
			key: `t${task.number}`, name: `Task-${task.number}`, coro: "fetch", state: "waiting", spawned_s: this.now - 100 + task.number / 1e3,
			waiting_since_s: this.now - 5, cancelling_since_s: null, cell: "In[4]", spawn_site: "In[4], line 7", waits_for: "sleep()",
			waits_at: "fetch In[4], line 3", parent: null, busy: null, note: "", blocked_s: 0, is_leftover: false,
			is_kernel: false, depth: 0, ...task,
		};
	}

	count() {
		let counts = { waiting: 0, ready: 0, running: 0, parked: 0, cancelling: 0, finished: this.finished.length };
		for (let task of this.tasks) counts[task.state] += 1;
		counts.failed = this.finished.filter((row) => row.state === "raised").length;
		this.head = { ...this.head, counts, tasks: this.tasks.length };
	}

	// The model, as anywidget gives it to a view.

	get(name) {
		return name === "options" ? this.options : { shared: this.shared(), window: this.window("", this.query) };
	}

	on(name, fn) {
		(this.listeners[name] ??= new Set()).add(fn);
	}

	off(name, fn) {
		this.listeners[name]?.delete(fn);
	}

	send(message) {
		this.heard.push(message);
		if (!this.isSilent) setTimeout(() => this.answer(message));
	}

	say(message) {
		for (let fn of [...(this.listeners["msg:custom"] ?? [])]) fn({ epoch: "e", ...message });
	}

	fire(name) {
		for (let fn of [...(this.listeners[name] ?? [])]) fn();
	}

	// The kernel.

	shared() {
		let { seq, head, block } = this;
		return { epoch: "e", seq, clock_s: this.now, taken_at: Date.now() / 1000, head, block };
	}

	answer(message) {
		let { op, view, query } = message;
		if (op === "visible" && !message.visible) delete this.queries[view];
		if ((op === "visible" && message.visible) || op === "query" || op === "resync") {
			this.queries[view] = query;
			if (op !== "query") this.say({ op: "shared", shared: this.shared() });
			this.sendWindow(view);
		}
		if (op === "cancel") this.cancel(message);
		if (op === "detail" && message.number !== null) this.say({ op, view, number: message.number, detail: this.detail });
		if (op === "tree" && message.kind) this.say({ op, view, kind: message.kind, lines: this.tree ?? [], more: 0 });
		if (op === "timeline" && message.shown) this.say({ op, view, base: null, tseq: 1, gone: [], now_s: this.now, ...this.timeline });
	}

	cancel({ id, number, group, view }) {
		let chosen = (task) => task.number === number || (group && this.groupOf(task) === group);
		let found = this.tasks.filter(chosen);
		this.tasks = this.tasks.filter((task) => !chosen(task));
		let text = found.length === 1 ? `cancelled ${found[0].name}` : `cancelled ${found.length} tasks`;
		this.say({ op: "ack", id, ok: true, text, final: true, view });
		this.push({ ended: Object.fromEntries(found.map(({ key }) => [key, "cancelled"])) });
	}

	/** Tell all views that something has changed. */
	push({ head = {}, ended = {} } = {}) {
		this.head = { ...this.head, ...head };
		this.count();
		this.seq += 1;
		this.block = null;
		this.say({ op: "head", base: this.seq - 1, seq: this.seq, clock_s: this.now, taken_at: Date.now() / 1000, head: this.head });
		for (let view of Object.keys(this.queries)) this.sendWindow(view, ended);
	}

	blocks(block) {
		this.block = block;
		this.say({ op: "block", seq: this.seq, clock_s: this.now, taken_at: Date.now() / 1000, block });
	}

	sendWindow(view, ended = {}) {
		let window = this.window(view, this.queries[view]);
		this.say({ op: "window", view, wbase: null, gone: [], ended, ...window });
	}

	window(view, query) {
		let wseq = (this.seqs[view] = (this.seqs[view] ?? 0) + 1);
		let all = query.tab === "finished" ? this.finished : this.find(query);
		if (query.desc) all = all.toReversed();
		let shown = all.slice(query.offset, query.offset + query.limit);
		let rows = Object.fromEntries(shown.map((row) => [row.key, { ...row }]));
		return { query, wseq, total: all.length, offset: query.offset, keys: shown.map((row) => row.key), rows };
	}

	groupOf({ coro, cell, waits_at }) {
		return `g${coro} ${cell} ${waits_at}`;
	}

	find({ text, states, cell, group, open, sort }) {
		let found = this.tasks.filter(
			(task) =>
				(!states.length || states.includes(task.state)) &&
				(!cell || task.cell === cell) &&
				`${task.name} ${task.coro}`.toLowerCase().includes(text.toLowerCase()),
		);
		if (sort === "name") found.sort((a, b) => (a.name < b.name ? -1 : 1));
		if (!group) return found;
		let groups = Map.groupBy(found, (task) => this.groupOf(task));
		return [...groups].flatMap(([key, members]) => {
			if (members.length < 2) return members;
			let is_open = open.includes(key);
			let [first] = members;
			let states = new Set(members.map((task) => task.state));
			let state = states.size === 1 ? first.state : "mixed";
			let row = { ...first, key, name: "", state, count: members.length, oldest_s: first.spawned_s, is_open };
			delete row.number;
			return is_open ? [row, ...members.map((task) => ({ ...task, depth: 1 }))] : [row];
		});
	}
}

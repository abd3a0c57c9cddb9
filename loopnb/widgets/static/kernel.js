/** Hear what a front end says about the life of the kernel, and find cells in its page. */

/**
 * @typedef {{get(name: string): any, set(name: string, value: any): void, send(content: any): void,
 *   on(name: string, fn: Function): void, off(name: string, fn: Function): void, widget_manager?: any}} Model
 */

/** @type {Record<string, "restart" | "end">} */
const ENDINGS = { restarting: "restart", autorestarting: "restart", dead: "end", terminating: "end" };

/**
 * Call *onEnd* when the kernel restarts or ends, in front ends of JupyterLab's kind. In others, only silence
 * tells.
 *
 * @param {Model} model
 * @param {(what: "restart" | "end") => void} onEnd
 * @returns {() => void} Takes it back.
 */
export function watchKernel(model, onEnd) {
	let kernel = model.widget_manager?.kernel;
	let signals = [kernel?.statusChanged, kernel?.disposed];
	let onStatus = (/** @type {any} */ _kernel, /** @type {string} */ status) => {
		if (status in ENDINGS) onEnd(ENDINGS[status]);
	};
	let onDisposed = () => onEnd("end");
	try {
		signals[0]?.connect(onStatus);
		signals[1]?.connect(onDisposed);
	} catch {
		return () => {};
	}
	return () => {
		signals[0]?.disconnect(onStatus);
		signals[1]?.disconnect(onDisposed);
	};
}

/**
 * Return the place of a cell's execution in the page, or null if the front end does not show it.
 *
 * @param {Element} from An element in the same notebook.
 * @param {string} cell For instance `In[4]`.
 * @returns {Element | null}
 */
export function findCell(from, cell) {
	let number = cell.match(/\[(\d+)\]/)?.[1];
	let notebook = from.closest(".jp-Notebook, .jp-NotebookPanel, #notebook") ?? document;
	let prompts = notebook.querySelectorAll(".jp-InputPrompt, .input_prompt");
	let found = [...prompts].find((prompt) => prompt.textContent?.match(/\[(\d+)\]/)?.[1] === number);
	return number ? (found?.closest(".jp-Cell, .cell") ?? null) : null;
}

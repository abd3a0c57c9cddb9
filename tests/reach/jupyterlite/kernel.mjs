// Run JupyterLite's Python kernel in Node, as its worker does in a browser.
//
//     node kernel.mjs PYODIDE PACKAGES REPOSITORY [--no-stack-switching]
//
// Each line of standard input is the text of a cell, as JSON. Each line of standard output is a message: what the
// cell prints and displays, with the number of the cell that it is for, and at the end "reply". What Node and
// Pyodide say themselves is no JSON.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const [folder, packages, repository, option] = process.argv.slice(2);
if (option === "--no-stack-switching") delete WebAssembly.Suspending;

const { loadPyodide } = await import(`${folder}/pyodide.mjs`);
const lock = JSON.parse(readFileSync(`${folder}/pyodide-lock.json`, "utf8"));
lock.packages = {}; // or Pyodide would look for what cells import on the web
const pyodide = await loadPyodide({ indexURL: folder, lockFileContents: JSON.stringify(lock) });
pyodide.mountNodeFS("/lib/python3.14/site-packages", packages);
pyodide.mountNodeFS("/repository", repository);
pyodide.globals.set("write", (line) => process.stdout.write(`${line}\n`));
await pyodide.runPythonAsync(`
import json
import os
import sys

sys.path.insert(0, "/repository")
sys.dont_write_bytecode = True
os.environ["HOME"] = "/tmp"
from pyodide_kernel import ipython_shell as shell, kernel_instance as kernel, stderr_stream, stdout_stream


def send(kind, **content):
    cell = getattr(kernel, "_parent_header", {}).get("cell")
    write(json.dumps({"kind": kind, "cell": cell, **content}, default=repr))


def stream(name, text):
    send("stream", name=name, text=text)


stdout_stream.publish_stream_callback = stderr_stream.publish_stream_callback = stream
shell.display_pub.display_data_callback = lambda data, *_: send("display", data=data)
shell.display_pub.update_display_data_callback = lambda data, *_: send("display", data=data)
shell.displayhook.publish_execution_result = lambda _count, data, _metadata: send("display", data=data)
shell.send_comm = lambda kind, content, *_: send(kind, content=content)
`);

const kernel = pyodide.globals.get("kernel");
const send = pyodide.globals.get("send");
send("ready");
let cell = 0;
for await (const line of createInterface({ input: process.stdin })) {
	kernel._parent_header = pyodide.toPy({ cell: ++cell });
	const reply = await kernel.run(JSON.parse(line));
	send.callKwargs("reply", { reply });
}
process.exit(0);

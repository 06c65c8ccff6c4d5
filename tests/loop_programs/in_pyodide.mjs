// Runs a Python program in Pyodide, under node:
//
//   node in_pyodide.mjs PYODIDE ARCHIVE PROGRAM NAME [switching]
//
// PYODIDE is the folder of the npm package, ARCHIVE a zip file of Python packages, PROGRAM a Python
// file. NAME is assigned to Python's variable `asked`. With "switching" blocking code may wait (JSPI).
// The exit code is 0 if the program has ended well, and 3 if this node cannot switch stacks.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, archive, program, asked, switching] = process.argv.slice(2);
// Without this, node prints the whole source of Pyodide.
process.on("uncaughtException", (error) => {
  console.error(String(error.stack).slice(0, 5000));
  process.exit(1);
});
const { loadPyodide } = await import(pathToFileURL(`${folder}/pyodide.mjs`));
const pyodide = await loadPyodide();
const canWait = "from pyodide.ffi import can_run_sync; can_run_sync()";
if (switching && !(await pyodide.runPythonAsync(canWait))) process.exit(3);
pyodide.unpackArchive(new Uint8Array(readFileSync(archive)), "zip");
pyodide.globals.set("asked", asked);
const source = readFileSync(program, "utf8");
await pyodide.runPythonAsync(source, { filename: program });
process.exit(0);

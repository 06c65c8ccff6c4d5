// Python in a Web Worker: one program at a time, for run.mjs.
//
// Messages to the worker:
//   {type: "load", pyodide, packages, helper}   the addresses of three things; the first message
//   {type: "run", source, call, file, tree}     run a program; tree: milliseconds between pictures
//                                               of its tasks, 0 for none
//   {type: "stop"}                              cancel the program
// Messages from the worker:
//   {type: "ready"}, {type: "stdout" | "stderr", text}, {type: "tree", text},
//   {type: "end", verdict}, {type: "broken", text}

let program;
let loading;

async function load({ pyodide: folder, packages, helper }) {
  const { loadPyodide } = await import(`${folder}pyodide.mjs`);
  const [pyodide, archive, source] = await Promise.all([
    // No input: a program that asks for some gets the end of the file.
    loadPyodide({ indexURL: folder, stdin: () => null }),
    fetched(packages).then((response) => response.arrayBuffer()),
    fetched(helper).then((response) => response.text()),
  ]);
  pyodide.unpackArchive(archive, "zip");
  pyodide.FS.writeFile("/home/pyodide/page_program.py", source);
  pyodide.runPython("import sys; sys.path.append('/home/pyodide/examples')");
  program = pyodide.pyimport("page_program");
}

async function fetched(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: ${response.status}`);
  return response;
}

async function run({ source, call, file, tree }) {
  let last;
  const show = () => {
    const text = program.tree();
    if (text !== last) postMessage({ type: "tree", text });
    last = text;
  };
  const timer = tree ? setInterval(show, tree) : undefined;
  const post = (type, text) => postMessage({ type, text });
  try {
    const verdict = await new Promise((resolve, reject) => {
      // An engine that can switch stacks (JSPI) may do so only in a call that returns a promise.
      const { begin } = program;
      if (WebAssembly.Suspending) begin.callPromising(source, call, file, post, resolve).catch(reject);
      else begin(source, call, file, post, resolve);
    });
    if (tree) show();
    postMessage({ type: "end", verdict });
  } finally {
    clearInterval(timer);
  }
}

onmessage = async ({ data }) => {
  try {
    if (data.type === "load") {
      loading = load(data);
      await loading;
      postMessage({ type: "ready" });
    } else if (data.type === "run") {
      await run(data);
    } else if (data.type === "stop") {
      program.stop();
    }
  } catch (error) {
    postMessage({ type: "broken", text: String(error) });
  }
};

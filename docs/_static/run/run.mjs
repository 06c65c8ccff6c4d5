// The Run buttons and the playground: one Python in a worker for the whole page, loaded on the first
// click. `worker.mjs` describes the messages.

import { highlighted } from "./highlight.mjs";
import { showTree } from "./tree.mjs";

const HERE = new URL(".", import.meta.url);
const TREE_EVERY = 100; // milliseconds
const PATIENCE = 3000; // milliseconds for a program that is stopped because another one is to run
const HINT = "Tab indents. Escape, then Tab leaves the code. Ctrl+Enter runs it.";

// -- Python ---------------------------------------------------------------------

let python; // {worker, ready: a promise}; undefined if none is loaded
let current; // the Runnable whose program runs

function load() {
  const worker = new Worker(new URL("worker.mjs", HERE), { type: "module" });
  const made = { worker };
  made.ready = new Promise((resolve, reject) => {
    const fail = (text) => {
      if (python === made) drop();
      if (current) current.broken(text);
      reject(new Error(text));
    };
    worker.onerror = (event) => fail(event.message || "the worker cannot be loaded");
    worker.onmessage = ({ data }) => {
      if (data.type === "ready") resolve();
      else if (data.type === "broken") fail(data.text);
      else if (current) current.receive(data);
    };
  });
  made.ready.catch(() => {});
  bundle()
    .then((names) =>
      worker.postMessage({
        type: "load",
        pyodide: new URL(names.pyodide, HERE).href,
        packages: new URL(names.packages, HERE).href,
        helper: new URL("page_program.py", HERE).href,
      }),
    )
    .catch((error) => worker.onerror({ message: String(error) }));
  return made;
}

async function bundle() {
  const response = await fetch(new URL("bundle.json", HERE), { cache: "no-cache" });
  if (!response.ok) throw new Error(`bundle.json: ${response.status}`);
  return response.json();
}

function drop() {
  if (python) python.worker.terminate();
  python = undefined;
}

// -- one program ----------------------------------------------------------------

class Runnable {
  constructor(root, output = root.querySelector(".run-output"), tree = null) {
    this.root = root;
    this.output = output;
    this.tree = tree;
    this.state = "idle"; // then "loading", "running", "stopping"
    this.pre = root.querySelector("pre");
    this.text = this.pre.textContent;
    this.start = root.querySelector(".run-start");
    this.reset = root.querySelector(".run-reset");
    this.status = root.querySelector(".run-status");
    const edit = root.querySelector(".run-edit");
    this.start.addEventListener("click", () => this.press());
    this.reset.addEventListener("click", () => {
      this.set(this.text);
      this.input.focus();
    });
    if (edit) {
      edit.addEventListener("click", () => {
        this.edit();
        this.input.focus();
        edit.hidden = true;
      });
      edit.disabled = false;
    }
    this.start.disabled = false;
  }

  get program() {
    return this.input ? this.input.value : this.text;
  }

  // -- the editor

  edit() {
    if (this.input) return;
    this.shown = document.createElement("code");
    this.shown.className = "run-shown";
    this.shown.append(...this.pre.childNodes);
    this.input = document.createElement("textarea");
    Object.assign(this.input, { className: "run-input", spellcheck: false, value: this.text, wrap: "off" });
    this.input.setAttribute("autocapitalize", "off");
    this.input.setAttribute("autocomplete", "off");
    this.input.setAttribute("aria-label", `${this.root.dataset.label || "Program"}. ${HINT}`);
    this.input.rows = 1;
    this.pre.classList.add("run-editing");
    this.pre.append(this.shown, this.input);
    this.input.addEventListener("input", () => this.show());
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.input.addEventListener("focus", () => {
      if (this.state === "idle") this.say(HINT);
    });
  }

  set(text) {
    this.input.value = text;
    this.show();
  }

  show() {
    this.shown.replaceChildren(highlighted(this.input.value), "\n");
    this.reset.hidden = this.input.value === this.text;
  }

  key(event) {
    const { input } = this;
    const leaving = this.leaving;
    this.leaving = event.key === "Escape" || (leaving && event.key === "Shift");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (this.state === "idle") this.press();
    } else if (event.key === "Tab" && !leaving && !event.ctrlKey && !event.altKey) {
      event.preventDefault();
      const begin = input.value.lastIndexOf("\n", input.selectionStart - 1) + 1;
      if (event.shiftKey) {
        const indent = /^ {0,4}/.exec(input.value.slice(begin))[0].length;
        const at = input.selectionStart;
        input.setSelectionRange(begin, begin + indent);
        if (indent) document.execCommand("delete");
        input.setSelectionRange(Math.max(begin, at - indent), Math.max(begin, at - indent));
      } else {
        document.execCommand("insertText", false, " ".repeat(4 - ((input.selectionStart - begin) % 4)));
      }
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      const before = input.value.slice(0, input.selectionStart);
      const line = before.slice(before.lastIndexOf("\n") + 1);
      const indent = /^ */.exec(line)[0] + (line.trimEnd().endsWith(":") ? "    " : "");
      document.execCommand("insertText", false, `\n${indent}`);
    }
  }

  // -- running

  say(text) {
    this.status.textContent = text;
  }

  set state(state) {
    this._state = state;
    this.root.dataset.state = state;
    if (this.start) {
      this.start.textContent = { idle: "Run", stopping: "End now" }[state] || "Stop";
    }
  }

  get state() {
    return this._state;
  }

  async press() {
    if (this.state === "idle") await this.run();
    else if (this.state === "running") this.stop();
    else this.kill();
  }

  async run() {
    if (current) await current.giveWay();
    current = this;
    this.output.hidden = false;
    this.output.replaceChildren();
    this.pending = [];
    if (this.tree) {
      this.tree.replaceChildren();
      this.mark([]);
    }
    this.began = undefined;
    this.state = "loading";
    try {
      if (!python) {
        this.say("Loading Python…");
        bundle().then(
          ({ megabytes }) => this.state === "loading" && this.say(`Loading Python, ${megabytes} MB…`),
          () => {},
        );
        python = load();
      }
      await python.ready;
    } catch {
      return; // broken() has said so
    }
    if (current !== this || this.state !== "loading") return;
    this.state = "running";
    this.say("Running…");
    this.began = performance.now();
    const { before = "", after = "", call = "", file } = this.root.dataset;
    python.worker.postMessage({
      type: "run",
      source: before + this.program + after,
      call,
      file,
      tree: this.tree ? TREE_EVERY : 0,
    });
  }

  receive(data) {
    if (data.type === "end") {
      const [verdict, dirty] = data.verdict.split(" ").reverse();
      if (dirty) drop();
      const seconds = ((performance.now() - this.began) / 1000).toFixed(1);
      this.end({ ended: "Ended", failed: "Ended with an error", stopped: "Stopped" }[verdict] + ` after ${seconds} s.`);
    } else if (data.type === "tree") {
      if (this.tree) this.mark(showTree(this.tree, data.text, this.root.dataset.file));
    } else {
      this.print(data.text, data.type);
    }
  }

  // Mark the lines of the program at which tasks are.
  mark(lines) {
    this.marks?.remove();
    this.marks = document.createElement("div");
    this.marks.className = "run-marks";
    this.marks.setAttribute("aria-hidden", "true"); // the tree has the same as text
    for (const line of lines) {
      const mark = document.createElement("span");
      mark.style.setProperty("--line", line - 1);
      this.marks.append(mark);
    }
    this.pre.prepend(this.marks);
  }

  print(text, type) {
    this.pending.push([text, type]);
    if (this.pending.length === 1) requestAnimationFrame(() => this.flush());
  }

  flush() {
    const { output } = this;
    const atEnd = output.scrollTop + output.clientHeight >= output.scrollHeight - 4;
    for (const [text, type] of this.pending.splice(0)) {
      const last = output.lastChild;
      if (last && last.className === `run-${type}`) {
        last.append(text);
      } else {
        const span = document.createElement("span");
        span.className = `run-${type}`;
        span.textContent = text;
        output.append(span);
      }
    }
    if (atEnd) output.scrollTop = output.scrollHeight;
  }

  stop() {
    this.state = "stopping";
    this.say("Cancelling its tasks…");
    python.worker.postMessage({ type: "stop" });
  }

  kill() {
    drop();
    this.end("Ended without cleanup: Python was shut down.");
  }

  broken(text) {
    this.end(`Python does not run here: ${text}`);
  }

  end(text) {
    if (current === this) current = undefined;
    this.marks?.remove();
    this.flush();
    this.state = "idle";
    this.say(text);
    this.waiting?.();
  }

  // Stop, because another program is to run.
  async giveWay() {
    if (this.state === "loading") {
      this.end("");
      return;
    }
    const ended = new Promise((resolve) => {
      this.waiting = resolve;
    });
    if (this.state === "running") this.stop();
    const timer = setTimeout(() => this.kill(), PATIENCE);
    await ended;
    clearTimeout(timer);
    this.waiting = undefined;
  }
}

// -- the page -------------------------------------------------------------------

function titleOf(element) {
  const heading = element.closest("section").querySelector("h1, h2, h3, h4");
  return heading.firstChild.textContent;
}

function openPlayground(place, programs) {
  const root = place.querySelector(".runnable");
  const tree = place.querySelector(".run-tree");
  const made = new Runnable(root, place.querySelector(".run-output"), tree);
  const select = place.querySelector("select");
  programs.forEach((program, index) => select.add(new Option(titleOf(program.root), index)));
  const choose = () => {
    if (current === made) made.giveWay();
    made.text = programs[select.value].text.trimEnd();
    made.set(made.text);
    made.output.replaceChildren();
    tree.replaceChildren(document.createElement("p"));
    tree.firstChild.textContent = "The tasks of the program appear here while it runs.";
    made.say("");
  };
  made.edit();
  select.addEventListener("change", choose);
  select.disabled = false;
  choose();
}

const bars = [...document.querySelectorAll(".runnable:not(.playground-code)")];
if (location.protocol === "file:" || !window.Worker || !window.WebAssembly) {
  // Browsers do not start workers for files.
  for (const bar of document.querySelectorAll(".run-bar, .playground")) bar.remove();
} else {
  const programs = bars.map((root) => new Runnable(root));
  const place = document.querySelector(".playground");
  if (place) openPlayground(place, programs);
}

// The task tree of a program, as nested lists: what `nurseryio.instruments.task_tree()` has found.

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

// The line of the program at which a task is; 0 if it is at none.
function lineOf(task, file) {
  return task.places.filter((place) => place.file === file).pop()?.line || 0;
}

// Names in the program itself are clear without its module.
function nameOf(task) {
  return task.name.replace(/^__main__\./, "");
}

function scopeText(scope) {
  const said = [scope.nursery ? "nursery" : "scope"];
  if (scope.deadline !== null && !scope.cancelled) said.push(`${scope.deadline.toFixed(1)} s left`);
  if (scope.cancelled) said.push(scope.reason || "cancelled");
  if (scope.shield) said.push("shield");
  return said.join(", ");
}

function taskItem(task, tasks, file) {
  const item = element("li", task.cancelled ? "tree-cancelled" : "");
  item.append(element("span", "tree-name", nameOf(task)), " ");
  const line = lineOf(task, file);
  if (line) item.append(element("span", "tree-line", `line ${line}`), " ");
  item.append(element("span", "tree-more", task.wait ? task.wait.text : task.state));
  const inNurseries = new Set(task.scopes.filter((scope) => scope.nursery).map((scope) => scope.id));
  let inner = item;
  for (const scope of task.scopes) {
    const list = element("ul");
    const below = element("li", scope.cancelled ? "tree-cancelled" : "");
    below.append(element("span", "tree-scope", scopeText(scope)));
    list.append(below);
    inner.append(list);
    if (scope.nursery) addTasks(below, tasks.filter((each) => each.nursery === scope.id), tasks, file);
    inner = below;
  }
  addTasks(
    item,
    tasks.filter((each) => each.parent === task.id && !inNurseries.has(each.nursery)),
    tasks,
    file,
  );
  return item;
}

function addTasks(item, found, tasks, file) {
  if (!found.length) return;
  const list = element("ul");
  list.append(...found.map((task) => taskItem(task, tasks, file)));
  item.append(list);
}

// Show the tasks in an element. `text` is JSON, `file` the name of the program. Returns the
// lines of the program at which tasks are.
export function showTree(target, text, file) {
  const { tasks } = JSON.parse(text);
  const ids = new Set(tasks.map((task) => task.id));
  const list = element("ul");
  list.append(
    ...tasks.filter((task) => !ids.has(task.parent)).map((task) => taskItem(task, tasks, file)),
  );
  target.replaceChildren(tasks.length ? list : element("p", "", "No task is left."));
  return new Set(tasks.map((task) => lineOf(task, file)).filter(Boolean));
}

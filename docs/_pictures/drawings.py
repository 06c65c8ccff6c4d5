"""From recorded runs to drawings: lanes of tasks, the tree of scopes, curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import nurseryio
from nurseryio.testing import MockClock

from . import scenes
from .record import Life, Record
from .svg import Drawing

WIDTH = 760
ROW = 40
BAR = 26


class Lanes:
    """A drawing with one row for each task, and time from left to right."""

    def __init__(self, title: str, record: Record, names: Sequence[str], seconds: float) -> None:
        self.record = record
        self.names = list(names)
        longest = max(len(name) for name in names)
        self.left = max(90, 24 + longest * 7.6)
        self.seconds = seconds
        self.drawing = Drawing(title, WIDTH, 58 + ROW * len(names) + 30)
        self._grid()

    def x(self, time: float) -> float:
        """The place of a time in seconds."""
        return self.left + time * (WIDTH - self.left - 24) / self.seconds

    def y(self, name: str) -> float:
        """The middle of a task's row."""
        return 58 + ROW * self.names.index(name) + ROW / 2

    @property
    def bottom(self) -> float:
        return 58 + ROW * len(self.names)

    def _grid(self) -> None:
        for second in range(int(self.seconds) + 1):
            x = self.x(second)
            self.drawing.line([(x, 48), (x, self.bottom)], "grid", width=1)
            self.drawing.text(
                x, self.bottom + 18, f"{second} s", colour="quiet", size=11.5, anchor="middle"
            )
        for name in self.names:
            self.drawing.text(14, self.y(name) + 4.5, name, code=True, size=12.5)

    def life(self, name: str) -> Life:
        """What was recorded of a task."""
        return self.record.lives[name]

    def bars(self) -> None:
        """Draw the stages of all tasks."""
        for name in self.names:
            for stage in self.life(name).stages:
                begin, end = self.x(stage.begin), self.x(stage.end)
                if end - begin < 1:
                    continue
                top = self.y(name) - BAR / 2
                self.drawing.box(begin, top, end - begin - 1.5, BAR, stage.kind)
                if len(stage.text) * 6.6 + 8 < end - begin:
                    self.drawing.text(begin + 7, self.y(name) + 4, stage.text, colour="on", size=12)

    def spawns(self) -> None:
        """Draw an arrow from each parent to each child."""
        for name in self.names:
            parent = self.record.spawned_by.get(name)
            if parent in self.names:
                x = self.x(self.life(name).begin)
                a, b = self.y(parent), self.y(name)
                self.drawing.line([(x - 6, a + BAR / 2), (x - 6, b), (x, b)], "line", arrow=True)

    def moment(self, time: float, text: str, colour: str = "fault") -> None:
        """Draw a dashed line through all rows at one time, with a text above."""
        x = self.x(time)
        self.drawing.line([(x, 40), (x, self.bottom)], colour, dashed=True)
        half = len(text) * 3.7
        middle = min(max(x, 10 + half), WIDTH - 10 - half)
        self.drawing.text(middle, 32, text, colour=colour, size=12.5, anchor="middle", bold=True)


def run(main: Callable[[Record], Any]) -> tuple[Record, Any]:
    """Run a scene under virtual time; return what was recorded, and its result."""
    record = Record()
    clock = MockClock(autojump_threshold=0)
    return record, nurseryio.run(main, record, clock=clock, instruments=[record])


def nursery() -> Drawing:
    record, _ = run(scenes.nursery)
    lanes = Lanes(
        "A nursery with one child that fails", record, ["main", "page 1", "page 2", "page 3"], 5.2
    )
    failed = next(mark for mark in record.marks if mark.name == "page 2")
    left = next(mark for mark in record.marks if mark.name == "main")
    lanes.spawns()
    lanes.bars()
    x = lanes.x(failed.at)
    draw = lanes.drawing
    draw.cross(x + 4, lanes.y("page 2"))
    draw.text(x + 16, lanes.y("page 2") + 4.5, failed.text, colour="fault", size=12.5, code=True)
    x = lanes.x(failed.at) - 1
    draw.line(
        [(x, lanes.y("page 2") + BAR / 2), (x, lanes.y("page 3") - BAR / 2)], "fault", arrow=True
    )
    draw.text(
        x - 8,
        lanes.y("page 3") - BAR / 2 - 4,
        "cancels its siblings",
        colour="fault",
        size=11.5,
        anchor="end",
    )
    lanes.moment(left.at, f"the block raises an {left.text}; no task is left")
    return draw


def timeout() -> Drawing:
    record, _ = run(scenes.timeout)
    names = ["asyncio.timeout(2)", "move_on_after(2)"]
    lanes = Lanes("A timeout that holds", record, names, 5.4)
    lanes.bars()
    lanes.moment(2, "the time is up; the function swallows the cancellation")
    for name, text, colour in (
        (names[0], "runs on", "fault"),
        (names[1], "each further await raises, so the block ends", "work"),
    ):
        end = record.lives[name].end
        if name == names[1]:
            lanes.drawing.text(
                lanes.x(end) + 10, lanes.y(name) + 4.5, text, colour=colour, size=12.5
            )
        else:
            x, y = lanes.x(2), lanes.y(name) + BAR / 2 + 5
            lanes.drawing.line([(x, y), (lanes.x(end), y)], colour, width=3, arrow=True)
    return lanes.drawing


def start() -> Drawing:
    record, _ = run(scenes.start)
    lanes = Lanes("nursery.start()", record, ["main", "server"], 5.2)
    lanes.spawns()
    lanes.bars()
    (started,) = record.marks
    x = lanes.x(started.at)
    lanes.drawing.line(
        [(x, lanes.y("server") - BAR / 2), (x, lanes.y("main") + BAR / 2)], "fault", arrow=True
    )
    lanes.moment(started.at, started.text)
    return lanes.drawing


def edge() -> Drawing:
    record, _ = run(scenes.edge)
    names = ["in a scope", "edge_cancellation"]
    lanes = Lanes("Cancellation by level and by edge", record, names, 7.4)
    lanes.bars()
    lanes.moment(2, "cancelled")
    for mark in record.marks:
        end = record.lives[mark.name].end
        y = lanes.y(mark.name)
        if mark.kind == "fault":
            lanes.drawing.cross(lanes.x(end) + 8, y)
            lanes.drawing.text(lanes.x(end) + 20, y + 4.5, mark.text, colour="fault", size=12.5)
        else:
            lanes.drawing.text(
                lanes.x(end) + 8, y + 4.5, "in its pool again", colour="work", size=12.5
            )
    lanes.drawing.text(
        lanes.x(7), 32, "the grace is over", colour="quiet", size=12, anchor="middle"
    )
    lanes.drawing.line([(lanes.x(7), 40), (lanes.x(7), lanes.bottom)], "quiet", dashed=True)
    return lanes.drawing


# -- the tree ---------------------------------------------------------------------------


@dataclass
class Node:
    """A task, a nursery or a scope in the tree."""

    text: str
    kind: str
    below: list[Node]
    scope: int | None = None
    cancelled: bool = False
    x: float = 0
    y: float = 0


def open_scopes(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all scopes of a tree, which came from `TaskTree.as_dict()`."""
    return [scope for task in data["tasks"] for scope in task["scopes"]]


def tree_of(data: dict[str, Any]) -> Node:
    """Return the tree of the main task."""
    tasks = {task["id"]: task for task in data["tasks"]}

    def task_node(task: dict[str, Any]) -> Node:
        top = parent = Node(task["name"].rpartition(".")[2], "task", [])
        for scope in task["scopes"]:
            kind = "shield" if scope["shield"] else "nursery" if scope["nursery"] else "scope"
            node = Node(kind, kind, [], scope["id"])
            parent.below.append(node)
            parent = node
            node.below += [task_node(tasks[child]) for child in scope["children"]]
        return top

    return task_node(next(t for t in data["tasks"] if t["name"].endswith("scopes")))


def spread(node: Node, depth: int, column: float) -> float:
    """Give each node its place; return the next free column."""
    node.y = 30 + depth * 52
    if not node.below:
        node.x = column
        return column + 1
    for child in node.below:
        column = spread(child, depth + 1, column)
    node.x = sum(child.x for child in node.below) / len(node.below)
    return column


def marked(node: Node, called: set[int], cancelled: bool) -> None:
    """Mark everything below a cancelled scope, up to a shield."""
    node.cancelled = (cancelled or node.scope in called) and node.kind != "shield"
    for child in node.below:
        marked(child, called, node.cancelled)


def scopes() -> Drawing:
    _, (before, after) = run(scenes.scopes)
    tree = tree_of(before)
    tree.text = "main"
    columns = spread(tree, 0, 0)
    called = {scope["id"] for scope in open_scopes(after) if scope["cancelled"]}
    marked(tree, called, False)
    gone = {task["name"] for task in before["tasks"]} - {task["name"] for task in after["tasks"]}
    nodes: list[Node] = []
    stack = [tree]
    while stack:
        node = stack.pop()
        nodes.append(node)
        stack.extend(node.below)
    height = max(node.y for node in nodes) + 50
    draw = Drawing("How a cancellation goes down the tree of scopes", WIDTH, height)
    scale = (WIDTH - 420) / max(1, columns - 1)
    for node in nodes:
        node.x = 150 + node.x * scale
    for node in nodes:
        for child in node.below:
            red = node.cancelled and child.cancelled
            draw.line(
                [(node.x, node.y + 15), (child.x, child.y - 15)],
                "fault" if red else "line",
                arrow=red,
                width=2 if red else 1.5,
            )
    for node in nodes:
        edge = "fault" if node.cancelled else "work" if node.kind == "shield" else "line"
        is_task = node.kind == "task"
        draw.box(
            node.x - 52, node.y - 15, 104, 30, "block", edge=edge, round_by=15 if is_task else 4
        )
        draw.text(node.x, node.y + 4.5, node.text, size=12.5, anchor="middle", code=is_task)
        if node.text in gone:
            draw.text(node.x, node.y + 31, "has ended", colour="fault", size=12, anchor="middle")
        if node.kind == "shield":
            draw.text(node.x + 60, node.y + 4, "keeps it out", colour="work", size=12.5)
    first = next(node for node in nodes if node.cancelled)
    draw.text(
        first.x - 60, first.y + 4, "cancel()", colour="fault", size=12.5, anchor="end", bold=True
    )
    keys = (
        ("a task", 15.0, "line"),
        ("a nursery or scope", 4.0, "line"),
        ("cancelled", 4.0, "fault"),
    )
    for line, (text, round_by, colour) in enumerate(keys):
        y = 22 + line * 28
        draw.box(WIDTH - 176, y - 2, 30, 18, "block", edge=colour, round_by=min(round_by, 9))
        draw.text(WIDTH - 138, y + 11, text, size=12, colour="quiet")
    return draw


# -- the curves ----------------------------------------------------------------------------


def streams() -> Drawing:
    record, _ = run(scenes.streams)
    left, right, top, bottom = 64, WIDTH - 24, 44, 264
    draw = Drawing("Data that was written and not read", WIDTH, 300)
    most = max(value for _, _, value in record.values)
    ceiling = (most // 10 + 1) * 10

    def place(time: float, value: float) -> tuple[float, float]:
        return left + time * (right - left) / 6, bottom - value * (bottom - top) / ceiling

    for value in range(0, int(ceiling) + 1, 10):
        _, y = place(0, value)
        draw.line([(left, y), (right, y)], "grid", width=1)
        text = f"{value * scenes.PIECE // 1024} KiB"
        draw.text(left - 8, y + 4, text, colour="quiet", size=11.5, anchor="end")
    for second in range(7):
        x, _ = place(second, 0)
        draw.text(x, bottom + 20, f"{second} s", colour="quiet", size=11.5, anchor="middle")
    heading = "Written and not yet read: ten pieces are written in a second, two are read"
    draw.text(left, 24, heading, size=12.5, colour="quiet")
    for name, colour in ((scenes.ASYNCIO, "fault"), (scenes.NURSERYIO, "work")):
        points = [place(0, 0)]
        for each, time, value in record.values:
            if each == name:
                x, y = place(time, value)
                points += [(x, points[-1][1]), (x, y)]
        points.append((place(6, 0)[0], points[-1][1]))
        draw.line(points, colour, width=2.5)
        x, y = points[-1]
        at = (x - 250, y + 6) if colour == "fault" else (x, y - 14)
        draw.text(*at, name, colour=colour, size=12.5, anchor="end", bold=True)
    return draw


PICTURES: dict[str, Callable[[], Drawing]] = {
    "nursery": nursery,
    "timeout": timeout,
    "scopes": scopes,
    "start": start,
    "edge": edge,
    "streams": streams,
}
"""By the name of the file."""

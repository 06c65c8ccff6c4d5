"""Recording a real run for a picture: which task did which thing from when to when.

A program of `scenes` runs under virtual time, so a run gives the same data each time. It calls
`doing()` at the beginning of each stage of a task. An instrument notes when tasks begin and end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import nurseryio


@dataclass
class Stage:
    """What a task did for a while; times in seconds after the beginning of the run."""

    text: str
    kind: str
    begin: float
    end: float


@dataclass
class Life:
    """One task: its name and stages."""

    name: str
    begin: float
    stages: list[Stage] = field(default_factory=list)
    end: float | None = None
    error: str | None = None


@dataclass
class Mark:
    """Something that happened at one moment in a task."""

    name: str
    text: str
    at: float
    kind: str


class Record(nurseryio.abc.Instrument):
    """The tasks and marks of a run, in the order in which they began."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.marks: list[Mark] = []
        self.spawned_by: dict[str, str] = {}
        self.values: list[tuple[str, float, float]] = []
        self._zero: float | None = None

    def now(self) -> float:
        """The time since the beginning of the run, in whole milliseconds."""
        time = nurseryio.current_time()
        if self._zero is None:
            self._zero = time
        return round(time - self._zero, 3)

    def task_spawned(self, task: nurseryio.lowlevel.Task) -> None:
        if task.name.startswith("<"):
            return
        name = name_of(task)
        self.lives[name] = Life(name, self.now())
        try:
            self.spawned_by[name] = name_of(nurseryio.lowlevel.current_task())
        except RuntimeError:
            pass  # the first task is made outside every task

    def task_exited(self, task: nurseryio.lowlevel.Task) -> None:
        life = self.lives.get(name_of(task))
        if life is not None:
            life.end = self.now()
            self._end_stage(life)

    def _end_stage(self, life: Life) -> None:
        if life.stages:
            life.stages[-1].end = self.now()

    def doing(self, text: str, kind: str = "work") -> None:
        """The running task begins a stage; `kind` is the name of a colour."""
        life = self.lives[name_of(nurseryio.lowlevel.current_task())]
        self._end_stage(life)
        life.stages.append(Stage(text, kind, self.now(), self.now()))

    def mark(self, text: str, kind: str = "text") -> None:
        """Note a moment in the running task."""
        self.marks.append(Mark(name_of(nurseryio.lowlevel.current_task()), text, self.now(), kind))

    def value(self, name: str, value: float) -> None:
        """Note a point of a curve."""
        self.values.append((name, self.now(), value))


def name_of(task: nurseryio.lowlevel.Task) -> str:
    """The name of a task in a picture. The main function of a scene is "main"."""
    return "main" if task.name.startswith("_pictures.scenes.") else task.name

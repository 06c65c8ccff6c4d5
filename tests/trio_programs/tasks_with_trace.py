"""A Trio program: two children in a nursery, watched by an instrument."""

import nurseryio as trio


async def child1():
    print("  child1: has started, and sleeps")
    await trio.sleep(1)
    print("  child1: is at its end")


async def child2():
    print("  child2: has started, and sleeps")
    await trio.sleep(1)
    print("  child2: is at its end")


async def parent():
    print("parent: has started")
    async with trio.open_nursery() as nursery:
        print("parent: starts child1")
        nursery.start_soon(child1)

        print("parent: starts child2")
        nursery.start_soon(child2)

        print("parent: waits for its children")
    print("parent: is at its end")


class Tracer(trio.abc.Instrument):
    def before_run(self):
        print("!!! the run begins")

    def tell(self, what, task):
        print(f"{what}: {task.name}")

    def task_spawned(self, task):
        self.tell("### spawned", task)

    def task_scheduled(self, task):
        self.tell("### scheduled", task)

    def before_task_step(self, task):
        self.tell(">>> begins a step", task)

    def after_task_step(self, task):
        self.tell("<<< has made a step", task)

    def task_exited(self, task):
        self.tell("### exited", task)

    def before_io_wait(self, timeout):
        if timeout:
            print(f"### waits for I/O, {timeout} seconds at most")
        else:
            print("### has a quick look at I/O")
        self.began = trio.current_time()

    def after_io_wait(self, timeout):
        duration = trio.current_time() - self.began
        print(f"### is back from I/O after {duration} seconds")

    def after_run(self):
        print("!!! the run is over")


trio.run(parent, instruments=[Tracer()])

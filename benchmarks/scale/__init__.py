"""What does not fit into a ratio of times: size, memory, idle CPU, import time, depth, growth.

What lives here: probes (one file per library, the same names), the process that runs one of them,
and the measurements that call it. What does not: micro rows and their rounds, though
`spawn_and_cancel` is borrowed from there.

Rules of the probes: `async def NAME(amount) -> dict`, run in a process of its own; the dict's
numbers go to the report as they are. Memory is resident memory (what the operating system sees),
CPU is that of the whole process.
"""

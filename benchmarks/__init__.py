"""Benchmarks: the same work written for asyncio, anyio, Trio, quattro and nurseryio, side by side.

`python -m benchmarks --help` tells what can be chosen; `make bench` runs the short form. No test
depends on a timing.

- `rows`, `micro/`: small pieces of work, as data and as code, one file per library.
- `network/`: servers, one raw client for all of them, CPU time of the server per operation.
- `scale/`: many tasks, memory, idle CPU, import time, depth, growth.
- `harness`, `worker`, `stopwatch`, `figures`: fresh processes, interleaved rounds, ratios.
- `run`, `report`, `plot`: the command line, the Markdown page, the picture.
- `instructions`: a row's cost in machine instructions, which noise does not touch.

Needs Python 3.11 or newer, since asyncio's idiom (`TaskGroup`, `timeout`) does.
"""

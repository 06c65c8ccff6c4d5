"""The micro rows: one file per library, the same function names in each.

What lives here: the timed work of every micro row, written the way each library's documentation
teaches it. What does not: titles, targets and sizes (`benchmarks.rows`), processes, rounds and
ratios (`benchmarks.harness`).

Rules of the folder:

- A row is `async def NAME(n, watch) -> int`: it does `n` units of work between `watch.start()` and
  `watch.stop()` and returns how many it *counted while working*, so that a test can hold two
  libraries to the same work.
- A file that lacks a row's name has no idiom for it; the row then shows a dash for that library.
- Set-up that a program does once (making a channel, warming a thread pool) is outside the watch.
- Public, documented API only; no trick in one file that its neighbours could have used and do not.
"""

"""The same two tasks, with a tracer that prints every step of the event loop.

It shows that tasks do not run at the same time: one task runs until it waits for something, and
only then the next one runs.
"""

from tasks_intro import parent

import nurseryio
from nurseryio.instruments import Tracer

if __name__ == "__main__":
    nurseryio.run(parent, instruments=[Tracer()])

"""The same two tasks, with a tracer that tells what the event loop does and when.

It shows that nothing happens at the same time: there is one task at a time, which runs until it
waits for something, and only then comes the next one.
"""

from tasks_intro import parent

import nurseryio
from nurseryio.instruments import Tracer

if __name__ == "__main__":
    nurseryio.run(parent, instruments=[Tracer()])

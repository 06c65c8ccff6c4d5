"""What tests call: checks of checkpoints and streams, orders of tasks, cancellations.

``checkpoints``: ``assert_checkpoints`` and ``assert_no_checkpoints``.
``support``: helpers of the stream checks, such as fresh pairs and expected errors.
``clogged``: checks of pairs whose sends wait; ``one_way``: all other checks of one-way streams.
``streams``: the three public stream checks, and the checks of two-way streams.
``sequencer``: blocks that run in order. ``network``: connect to a listener of the test.
``task_order``: shuffle the tasks that are ready, and repeat their order.
``schedules``: cancel tasks at random steps or at every await, and check that no cancel is lost.

``nurseryio.testing`` makes them public. Streams and clocks for tests are there.
"""

from __future__ import annotations

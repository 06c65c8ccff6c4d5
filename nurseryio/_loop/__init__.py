"""What an event loop tells: descriptors that are ready, that nothing is left to run, each step."""

from __future__ import annotations

from .selector_idle import (
    current_clock as current_clock,
    wait_all_tasks_blocked as wait_all_tasks_blocked,
)
from .step_hooks import add_instrument as add_instrument, remove_instrument as remove_instrument
from .wait_io import (
    notify_closing as notify_closing,
    wait_readable as wait_readable,
    wait_writable as wait_writable,
)

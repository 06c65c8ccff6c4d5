"""Names of hosts and services to addresses and back, in worker threads."""

from __future__ import annotations

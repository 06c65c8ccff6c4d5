"""Checks that tests call: of checkpoints, of streams, of what a cancellation at any await does."""

from __future__ import annotations

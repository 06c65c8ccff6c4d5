"""Looking at a program that runs: its tasks as a tree, what happens in it as lines of text."""

from __future__ import annotations

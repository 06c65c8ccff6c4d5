"""Futures that have their result and then raise: a signal handler raised as the call returned."""

from __future__ import annotations

import asyncio
from typing import Any


class OutOfTime(BaseException):
    """The error that a handler of SIGALRM raises."""


class LateFuture(asyncio.Future[Any]):
    """Its first ``set_result`` does all that it should, and raises."""

    raised = False

    def set_result(self, result: Any) -> None:
        super().set_result(result)
        if not self.raised:
            self.raised = True
            raise OutOfTime

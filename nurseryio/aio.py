"""Bridges between asyncio code and nurseryio, in both directions.

``edge_cancellation`` lets asyncio code see one cancellation and then clean up. ``enter_in_task``
runs a context manager in a separate task. ``supervise`` has a nursery supervise an asyncio task.
Other functions convert streams from and to asyncio's and anyio's. ``provide_trio`` makes
``import trio`` give nurseryio, for programs and libraries written for Trio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base.lazy_exports import lazy_exports
from ._interop.edge_cancellation import (
    EdgeCancellation as EdgeCancellation,
    edge_cancellation as edge_cancellation,
)
from ._interop.entered_context import (
    EnteredContext as EnteredContext,
    enter_in_task as enter_in_task,
)
from ._interop.supervise import supervise as supervise

if TYPE_CHECKING:
    from ._interop.anyio_stream import (
        AnyioStream as AnyioStream,
        HalfCloseableAnyioStream as HalfCloseableAnyioStream,
        anyio_from_stream as anyio_from_stream,
        stream_from_anyio as stream_from_anyio,
    )
    from ._interop.as_trio import provide_trio as provide_trio
    from ._interop.asyncio_stream import (
        AsyncioStream as AsyncioStream,
        HalfCloseableAsyncioStream as HalfCloseableAsyncioStream,
        stream_from_asyncio as stream_from_asyncio,
    )
    from ._interop.stream_transport import asyncio_from_stream as asyncio_from_stream

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(
        globals(),
        {
            "_interop.anyio_stream": (
                "AnyioStream HalfCloseableAnyioStream anyio_from_stream stream_from_anyio"
            ),
            "_interop.as_trio": "provide_trio",
            "_interop.asyncio_stream": (
                "AsyncioStream HalfCloseableAsyncioStream stream_from_asyncio"
            ),
            "_interop.stream_transport": "asyncio_from_stream",
        },
    )

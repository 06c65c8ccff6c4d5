"""Working together with asyncio code, with anyio, and with programs written for Trio.

``anyio_bridge``: nurseryio's and anyio's cancel scopes in one task respect each other's shields.
``edge_cancellation``: asyncio libraries get one cancellation, and then time to clean up.
``entered_context``: a context manager that a separate task enters, and any task may close.
``supervise``: a nursery waits for an asyncio task or future that exists already.
``asyncio_stream``: streams over asyncio's connections. ``stream_transport``: the other way round.
``anyio_stream``: streams to and from anyio. ``trio_util``, ``trio_private``: Trio's private names.
``anyio_trio``, ``trio_metadata``, ``as_trio``: ``import trio`` gives nurseryio.
``main_program``, ``commands``, ``cli``: ``python -m nurseryio`` runs or looks at a program.

Not here: how asyncio's own cancel requests are counted (``_core.cancel_ledger``); when the bridge
is loaded (``_core.anyio_hook``); the protocol of a transport (``_net.link``).
"""

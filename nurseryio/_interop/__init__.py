"""The meeting places with asyncio code, with anyio, and with programs written for Trio."""

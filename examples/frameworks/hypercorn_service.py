"""A service under Hypercorn that ends its requests, its background work and itself in order.

Needs Hypercorn. Started as ``python hypercorn_service.py``; it prints its port, and Ctrl-C or
SIGTERM ends it.
"""

import asyncio
import signal

from hypercorn.asyncio import serve
from hypercorn.config import Config

import nurseryio


class Service:
    """The ASGI application."""

    def __init__(self):
        self.stopping = nurseryio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
        else:
            await self.request(scope["path"], receive, send)

    async def lifespan(self, receive, send):
        await receive()
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(self.work)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            nursery.cancel_scope.cancel(reason="the service ends")
        await send({"type": "lifespan.shutdown.complete"})

    async def work(self):
        try:
            await nurseryio.sleep_forever()
        finally:
            print("background work: tidied up")

    async def request(self, path, receive, send):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(self.watch, receive, nursery.cancel_scope)
            nursery.start_soon(self.end_with_service, nursery.cancel_scope)
            print("asked:", path)
            try:
                body = await answer(path)
                await respond(send, body)
            except asyncio.CancelledError:
                print(path, "was cancelled")
                raise
            finally:
                nursery.cancel_scope.cancel(reason="answered")

    async def watch(self, receive, scope):
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel(reason="the client has gone")

    async def end_with_service(self, scope):
        await self.stopping.wait()
        scope.cancel(reason="the service ends")


async def answer(path):
    if path == "/slow":
        await nurseryio.sleep(3600)
    return b"hello\n"


async def respond(send, body):
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def main():
    service = Service()
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None
    sockets = config.create_sockets()
    print("listening on port", sockets.insecure_sockets[0].getsockname()[1])
    config.bind = [f"fd://{sockets.insecure_sockets[0].detach()}"]

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(stop_by_signal, service.stopping)
        # Not nursery.cancel_scope.cancel(): that would interrupt Hypercorn while it shuts down.
        await serve(service, config, shutdown_trigger=service.stopping.wait)
        nursery.cancel_scope.cancel(reason="the service has ended")
    print("the service has ended")


async def stop_by_signal(stopping):
    with nurseryio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            stopping.set()


if __name__ == "__main__":
    nurseryio.run(main)

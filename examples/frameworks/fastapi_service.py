"""A web service on FastAPI and uvicorn, with a nursery for each request and one for the service.

    python examples/frameworks/fastapi_service.py [PORT]

    GET  /quotes?patience=0.5   asks all suppliers at once; late answers are left out
    POST /orders?item=tea       passes work to a background task, which runs as long as the service
    GET  /health                the number of tasks, of suppliers being asked, and the loop

If a client disconnects, its request stops at once, with all its tasks. Ctrl-C ends the service: the
requests first, then the background work, each with its cleanup. If the background work fails, the
service ends with an error, because it would be incomplete.
"""

import asyncio
import contextlib
import socket
import sys

import uvicorn
from fastapi import FastAPI, HTTPException, Request

import nurseryio

# The time that each supplier takes to answer, in seconds.
SUPPLIERS = {"near": 0.02, "far": 0.1, "hopeless": 3600}

being_asked = []


# -- for the lifetime of the service --------------------------------------------


@contextlib.asynccontextmanager
async def lifespan(app):
    app.state.failed = False
    send_order, orders = nurseryio.open_memory_channel(100)
    try:
        async with nurseryio.open_nursery() as background:
            background.start_soon(pack, orders)
            yield {"send_order": send_order}
            background.cancel_scope.cancel("the service is shutting down")
    except Exception:
        app.state.failed = server.should_exit = True
        raise


async def pack(orders):
    try:
        async for item in orders:
            if item == "a bug":
                raise RuntimeError("the packing machine is stuck")
            await asyncio.sleep(0.01)
            print("packed:", item)
    finally:
        # In a cancelled scope, cleanup that has to wait needs a shield, with a time limit.
        with nurseryio.move_on_after(1, shield=True):
            await asyncio.sleep(0.05)
        print("packing: tidied up")


# -- for the lifetime of a request ----------------------------------------------


@contextlib.asynccontextmanager
async def while_connected(request):
    """Cancel the block when the client disconnects."""
    gone = False

    async def watch():
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        nursery.cancel_scope.cancel("the client has gone")

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(watch)
        yield
        nursery.cancel_scope.cancel("the work is done")
    if gone:
        raise HTTPException(499, "the client has gone")


async def ask(supplier, answers):
    being_asked.append(supplier)
    try:
        await asyncio.sleep(SUPPLIERS[supplier])
        answers[supplier] = len(supplier)
    finally:
        being_asked.remove(supplier)


app = FastAPI(lifespan=lifespan)


@app.get("/quotes")
async def quotes(request: Request, patience: float = 0.5):
    answers = {}
    async with while_connected(request):
        with nurseryio.move_on_after(patience):
            async with nurseryio.open_nursery() as nursery:
                for supplier in SUPPLIERS:
                    nursery.start_soon(ask, supplier, answers)
    return answers


@app.post("/orders", status_code=202)
async def order(request: Request, item: str):
    try:
        request.state.send_order.send_nowait(item)
    except nurseryio.WouldBlock:
        raise HTTPException(503, "too many orders") from None


@app.get("/health")
async def health():
    loop = type(asyncio.get_running_loop()).__module__
    return {"tasks": len(asyncio.all_tasks()), "being asked": len(being_asked), "loop": loop}


# -- the program ----------------------------------------------------------------

server = uvicorn.Server(
    uvicorn.Config(app, lifespan="on", log_level="warning", timeout_graceful_shutdown=1)
)

if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 0)) as sock:
        print("listening on port", sock.getsockname()[1])
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn has handled it
            asyncio.run(server.serve(sockets=[sock]))
    print("the service has ended")
    sys.exit(1 if app.state.failed else 0)

"""An aiohttp server and an aiohttp client, each in a nursery, in one program.

    python examples/frameworks/aiohttp_pages.py

The client fetches many pages, a few at a time. It is stopped three times: by a page that does not
exist, by a timeout, and by finding the page that it looks for. Each time the running requests are
cancelled, and the server's handlers, which have nurseries of their own, stop too.
"""

import asyncio

import aiohttp
from aiohttp import web

import nurseryio

# The numbers of the pages that the server is making.
under_way = set()


# -- the server -----------------------------------------------------------------


async def page(request):
    """Make a page of two parts at the same time; /page/N takes N/100 seconds."""
    number = int(request.match_info["number"])
    if number == 13:
        raise web.HTTPNotFound
    parts = {}

    async def make(name):
        await asyncio.sleep(number / 100)
        parts[name] = f"{name} of page {number}"

    under_way.add(number)
    try:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(make, "head")
            nursery.start_soon(make, "body")
    finally:
        under_way.remove(number)
    return web.Response(text=f"{parts['head']}, {parts['body']}")


async def serve(app, *, task_status):
    """Serve until cancelled; start() returns the port."""
    # Without handler_cancellation aiohttp lets handlers continue when their client has gone.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        task_status.started(runner.addresses[0][1])
        await nurseryio.sleep_forever()
    finally:
        with nurseryio.move_on_after(5, shield=True):
            await runner.cleanup()


async def until_idle():
    with nurseryio.fail_after(5):
        while under_way:
            await nurseryio.sleep(0.01)


# -- the client -----------------------------------------------------------------


async def fetch(session, number, limiter):
    async with limiter, session.get(f"/page/{number}", raise_for_status=True) as response:
        return await response.text()


async def all_pages(session, numbers):
    """Fetch all pages; if one fails, raise its error and cancel the others."""
    limiter = nurseryio.CapacityLimiter(5)
    texts = {}

    async def one(number):
        texts[number] = await fetch(session, number, limiter)

    async with nurseryio.open_nursery() as nursery:
        for number in numbers:
            nursery.start_soon(one, number)
    return texts


async def first_page_with(session, words, numbers):
    """Return the first page that has the words; the other requests are cancelled."""
    found = None
    limiter = nurseryio.CapacityLimiter(5)

    async def one(number):
        nonlocal found
        text = await fetch(session, number, limiter)
        if words in text:
            found = text
            nursery.cancel_scope.cancel("found")

    async with nurseryio.open_nursery() as nursery:
        for number in numbers:
            nursery.start_soon(one, number)
    return found


# -- the program ----------------------------------------------------------------


async def main():
    app = web.Application()
    app.add_routes([web.get("/page/{number}", page)])

    async with nurseryio.open_nursery() as nursery:
        port = await nursery.start(serve, app)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            print("all:", len(await all_pages(session, range(12))), "pages")

            try:
                await all_pages(session, [12, 13, 6000])
            except Exception as group:
                print("failed:", *(error.status for error in group.exceptions))
            await until_idle()

            with nurseryio.move_on_after(0.1) as scope:
                await all_pages(session, [1, 6000])
            await until_idle()
            print("out of time:", scope.cancelled_caught)

            print("found:", await first_page_with(session, "page 3", [6000, 5000, 3]))
            await until_idle()
        nursery.cancel_scope.cancel("the program ends")
    print("tasks left:", len(asyncio.all_tasks()) - 1)


if __name__ == "__main__":
    asyncio.run(main())

"""A terminal application of Textual whose background work is in nurseries.

Needs Textual. Started as ``python textual_prices.py``; with ``--headless`` it needs no terminal and
ends by itself.
"""

import asyncio
import sys

from textual.app import App
from textual.widgets import Label

import nurseryio
from nurseryio.aio import edge_cancellation


class Prices(App):
    def __init__(self):
        super().__init__()
        self.shown = []

    def compose(self):
        yield Label("no price yet")

    def show(self, price):
        self.shown.append(price)
        self.query_one(Label).update(f"price: {price}")


async def quote(send, shop):
    for price in range(3):
        await nurseryio.sleep(0.01)
        await send.send(f"{shop} {price}")


async def follow(app, stop_after):
    send, receive = nurseryio.open_memory_channel(0)
    async with nurseryio.open_nursery() as nursery:
        for shop in ("near", "far"):
            nursery.start_soon(quote, send, shop)
        async for price in receive:
            app.call_later(app.show, price)
            if price.endswith(stop_after):
                raise ConnectionError(f"lost {price}")


async def run(app, headless):
    # Textual restores the terminal with several awaits, which must not be cancelled.
    with edge_cancellation(grace=5):
        await app.run_async(headless=headless)


async def main(headless, stop_after="never"):
    app = Prices()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(follow, app, stop_after)
        if headless and stop_after == "never":
            nursery.start_soon(quit_soon, app)
        await run(app, headless)
        nursery.cancel_scope.cancel(reason="the application has ended")
    return sorted(app.shown)


async def quit_soon(app):
    while len(app.shown) < 6:
        await nurseryio.sleep(0.01)
    app.exit()


async def demonstrate():
    print("shown:", ", ".join(await main(headless=True)))
    try:
        await main(headless=True, stop_after="2")
    except BaseException as group:
        print("failed:", group.exceptions[0].exceptions[0])
    with nurseryio.move_on_after(0.5) as scope:
        await run(Prices(), headless=True)
        await nurseryio.lowlevel.checkpoint()
    print("out of time:", scope.cancelled_caught)
    print("tasks left:", len(asyncio.all_tasks() - {asyncio.current_task()}) - 1)


if __name__ == "__main__":
    if "--headless" in sys.argv:
        nurseryio.run(demonstrate)
    else:
        nurseryio.run(main, False)

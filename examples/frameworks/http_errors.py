"""Errors that a web framework answers, raised in the children of a nursery: FastAPI and aiohttp.

    python examples/frameworks/http_errors.py

A nursery raises a group, and a framework looks for its own exception. `bare()` takes it out of the
group, if nothing else is in the group. Each application is asked for a page that does not exist,
and for one in which a bug meets the framework's exception.
"""

import asyncio
import contextlib
import sys

import aiohttp
import httpx
from aiohttp import web
from fastapi import FastAPI, HTTPException

import nurseryio

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


@contextlib.contextmanager
def bare(kind):
    """Let an error of one kind leave the block bare. A group with other errors is left as it is."""
    try:
        yield
    except BaseExceptionGroup as group:
        found, others = group.split(kind)
        if others is not None:
            raise  # there is a bug as well, which must be seen
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        raise found from None


# -- FastAPI ---------------------------------------------------------------------

service = FastAPI()


async def look_up(part):
    if part == "missing":
        raise HTTPException(404, "there is no such part")
    if part == "broken":
        raise ZeroDivisionError("a bug")


@service.get("/pages")
async def pages(parts: str):
    with bare(HTTPException):
        async with nurseryio.open_nursery() as nursery:
            for part in parts.split(","):
                nursery.start_soon(look_up, part)
    return "all parts are there"


# -- aiohttp: once, for all handlers ---------------------------------------------


@web.middleware
async def bare_http_errors(request, handler):
    with bare(web.HTTPException):
        return await handler(request)


async def look_up_for_aiohttp(part):
    if part == "missing":
        raise web.HTTPNotFound(text="there is no such part")
    if part == "broken":
        raise ZeroDivisionError("a bug")


async def aiohttp_pages(request):
    async with nurseryio.open_nursery() as nursery:
        for part in request.query["parts"].split(","):
            nursery.start_soon(look_up_for_aiohttp, part)
    return web.Response(text="all parts are there")


# -- asking both -----------------------------------------------------------------

QUESTIONS = ("head,body", "head,missing", "missing,broken")


async def ask_fastapi():
    transport = httpx.ASGITransport(app=service, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        for parts in QUESTIONS:
            answer = await client.get("/pages", params={"parts": parts})
            print("FastAPI", parts, answer.status_code)


async def ask_aiohttp():
    app = web.Application(middlewares=[bare_http_errors])
    app.router.add_get("/pages", aiohttp_pages)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/pages"
        async with aiohttp.ClientSession() as session:
            for parts in QUESTIONS:
                async with session.get(url, params={"parts": parts}) as answer:
                    print("aiohttp", parts, answer.status)
    finally:
        await runner.cleanup()


async def main():
    await ask_fastapi()
    await ask_aiohttp()


if __name__ == "__main__":
    asyncio.run(main())

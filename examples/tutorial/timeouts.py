"""When things go wrong: timeouts, cancellation, errors in concurrent tasks, Ctrl-C.

To handle some errors of a group you write ``except*``, which Python 3.10 does not have. So that
part is in two files: groups_with_star.py, and groups_with_catch.py for 3.10.
"""

import signal
import sys

import nurseryio

if sys.version_info >= (3, 11):
    from groups_with_star import handle_some
else:
    from groups_with_catch import handle_some


async def count(name):
    for number in range(1, 1000):
        print(f"  {name}: {number}")
        await nurseryio.sleep(0.1)


async def out_of_time():
    """fail_after() is for work that must be done; move_on_after() for work that may be left out."""
    try:
        with nurseryio.fail_after(0.25):
            await count("count")
    except nurseryio.TooSlowError:
        print("fail_after: too slow")

    with nurseryio.move_on_after(0.25) as scope:
        # The block may have anything inside: child tasks have the same deadline.
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(count, "left")
            nursery.start_soon(count, "right")
    print(f"move_on_after: out of time is {scope.cancelled_caught}")


async def what_cancelled_is():
    """A cancelled scope raises Cancelled at each await inside, not only at the first."""
    with nurseryio.move_on_after(0.1):
        try:
            await nurseryio.sleep_forever()
        except nurseryio.Cancelled as cancelled:
            print(f"Cancelled is an exception: {cancelled}")
            try:
                await nurseryio.sleep(5)
            except nurseryio.Cancelled:
                print("and it comes again at the next await")
            with nurseryio.CancelScope(shield=True, deadline=nurseryio.current_time() + 5):
                await nurseryio.sleep(0.1)
                print("unless that stands in a shield, for a cleanup that has to wait")
            # Code that catches it must raise it again, because it belongs to the scope.
            raise
    print("and it ends where its scope ends")


async def patient():
    try:
        await nurseryio.sleep_forever()
    finally:
        print("  patient: cancelled, since a sibling has failed")


async def failing(go, error):
    await go.wait()
    print(f"  failing: raising {error!r}")
    raise error


async def one_child_fails(go):
    """An error in one child cancels its siblings; the nursery raises it when they have ended."""
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(patient)
        nursery.start_soon(failing, go, ValueError("no such value"))


async def several_fail():
    """Each error is kept: a nursery raises them in one group, with a tree of tracebacks."""
    go = nurseryio.Event()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(one_child_fails, go)
        nursery.start_soon(failing, go, KeyError("no such key"))
        nursery.start_soon(failing, go, KeyError("nor that one"))
        await nurseryio.sleep(0.1)
        go.set()


def show(error, depth=1):
    """Print the structure of an error: a group, and what is in it."""
    print("  " * depth + f"{type(error).__name__}: {error}")
    for part in getattr(error, "exceptions", ()):
        show(part, depth + 1)


async def errors():
    go = nurseryio.Event()
    go.set()
    try:
        await one_child_fails(go)
    except Exception as error:
        print("a group, even around one error:")
        show(error)
    try:
        await several_fail()
    except Exception as error:
        print("groups in groups, as the nurseries were:")
        show(error)
    await handle_some(several_fail)


async def interrupted():
    """Ctrl-C raises KeyboardInterrupt, which leaves the nursery as any other error does."""
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(patient)
        await nurseryio.sleep(0.1)
        print("pressing Ctrl-C")
        signal.raise_signal(signal.SIGINT)
        await nurseryio.sleep(5)


async def main():
    await out_of_time()
    await what_cancelled_is()
    await errors()


if __name__ == "__main__":
    nurseryio.run(main)
    try:
        nurseryio.run(interrupted)
    except KeyboardInterrupt:
        print("KeyboardInterrupt came out of run(), bare, when all tasks had ended")

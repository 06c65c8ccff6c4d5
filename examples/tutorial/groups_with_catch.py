"""Handling some errors of a group with ``exceptiongroup.catch`` (Python 3.10); see timeouts.py."""

from exceptiongroup import catch


async def handle_some(async_fn):
    """Handle the KeyErrors, at any depth of the group; then the errors that are left."""

    def key_errors(group):
        print(f"handled: {len(group.exceptions)} KeyErrors")

    def value_errors(group):
        print(f"left over, and handled outside: {group.exceptions!r}")

    with catch({ValueError: value_errors}), catch({KeyError: key_errors}):
        await async_fn()

"""Handling some errors of a group with ``except*`` (Python 3.11 and later); see timeouts.py."""


async def handle_some(async_fn):
    """Handle the KeyErrors, at any depth of the group; then the errors that are left."""
    try:
        try:
            await async_fn()
        except* KeyError as group:
            print(f"handled: {len(group.exceptions)} KeyErrors")
    except* ValueError as group:
        print(f"left over, and handled outside: {group.exceptions!r}")

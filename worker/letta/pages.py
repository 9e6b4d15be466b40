"""Walk a list page by page along its cursor, without ever going round in circles."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

from worker.letta.models import Page, RowT

_STEPS_BACK = 3
"""How many of a page's last rows are tried as cursors before the walk is given up: a row may be deleted meanwhile."""


async def walk(
    fetch: Callable[[Mapping[str, str]], Awaitable[Page[RowT]]], cursors: Sequence[str] = ("after",)
) -> AsyncGenerator[Page[RowT], None]:
    """Yield pages until the server has no more, each without the rows that an earlier page had.

    `fetch` is called with the cursor to add to the query, at first with none. The end is an empty page; a short one
    is not, as a server may cap the limit. A server that does not know a cursor starts again from the beginning
    (0.16.8), so a page with nothing new is the mark of a lost cursor: then the rows before it are tried, and the names
    in `cursors` in turn, and then the walk ends.
    """
    seen: set[str] = set()
    attempts: list[tuple[str, str] | None] = [None]
    while attempts:
        attempt = attempts.pop(0)
        page = await fetch(dict([attempt]) if attempt else {})
        if not page:
            return
        fresh = [row for row in page if row.id is None or row.id not in seen]
        ids = list(dict.fromkeys(row.id for row in fresh if row.id is not None))
        if not ids and attempt is not None:
            continue
        yield fresh
        seen.update(ids)
        if attempt is not None:
            # The name that worked is tried first from now on.
            cursors = sorted(cursors, key=lambda name: name != attempt[0])
        attempts = [(name, row_id) for row_id in ids[: -_STEPS_BACK - 1 : -1] for name in cursors]

"""Just enough of Markdown to hold a page against the code: its sections, tables and code blocks."""

from __future__ import annotations

import re


def section(page: str, heading: str) -> str:
    """The text below a heading, up to the next one of its level or above; KeyError when there is no such heading."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", page, re.MULTILINE)
    if found is None:
        raise KeyError(heading)
    rest = page[found.end() :]
    following = re.search(rf"^#{{1,{len(found[1])}}} ", _without_blocks(rest), re.MULTILINE)
    return rest if following is None else rest[: following.start()]


def tables(text: str) -> dict[str, list[list[str]]]:
    """Each table's rows of cells, by the first word of the table's head; backticks are taken off."""
    found: dict[str, list[list[str]]] = {}
    rows: list[list[str]] | None = None
    for line in _without_blocks(text).splitlines():
        if not line.startswith("|"):
            rows = None
            continue
        cells = [cell.strip().replace("`", "") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if rows is None:
            rows = found.setdefault(cells[0], [])
        elif set("".join(cells)) - set("- :"):
            rows.append(cells)
    return found


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    """The targets of the links in a text, those to other sites left out."""
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


def anchor(heading: str) -> str:
    """The name under which a heading can be linked to."""
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


def headings(text: str) -> list[str]:
    """All headings, without their marks."""
    return re.findall(r"^#+ (.+)$", _without_blocks(text), re.MULTILINE)


def _without_blocks(text: str) -> str:
    """The same text, of the same length, with blanks for the lines of fenced code blocks: a `#` there is a comment."""
    return re.sub(r"^```.*?^```$", lambda block: re.sub(r"[^\n]", " ", block[0]), text, flags=re.MULTILINE | re.DOTALL)

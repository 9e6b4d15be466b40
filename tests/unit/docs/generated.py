"""The parts of the documents that are made from the code; as a program, writes them anew.

python -m tests.unit.docs.generated
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from worker.settings import Settings

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
ENV_EXAMPLE = ROOT / ".env.example"

SETTINGS_HEAD = "| variable | default | meaning |\n| --- | --- | --- |\n"
WIDTH = 100

PREAMBLE = """\
# Every setting of the service, with its default. Copy this file to `.env` in the directory where the processes run and
# take the `#` from what you change. The process's environment wins over this file.
"""


def settings_table() -> str:
    """The README's table of settings."""
    rows = []
    for variable, default, meaning in Settings.table():
        shown = f"`{default}`" if default else ""
        escaped = meaning.replace("|", r"\|")
        rows.append(f"| `{variable}` | {shown} | {escaped} |\n")
    return SETTINGS_HEAD + "".join(rows)


def env_example() -> str:
    """`.env.example`: each setting commented out, so that the file as it stands changes nothing."""
    blocks = [
        textwrap.fill(meaning, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        + f"\n#{variable}={default}\n"
        for variable, default, meaning in Settings.table()
    ]
    return "\n".join([PREAMBLE, *blocks])


def with_table(readme: str) -> str:
    """Put the table of settings into the README in the place of the one there."""
    before, head, rest = readme.partition(SETTINGS_HEAD)
    if not head:
        raise ValueError("the README has no table of settings to replace")
    lines = rest.splitlines(keepends=True)
    rows = next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return before + settings_table() + "".join(lines[rows:])


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    ENV_EXAMPLE.write_text(env_example(), encoding="utf-8")

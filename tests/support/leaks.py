"""Searches what a service wrote and served for strings that must be nowhere, in whatever form they were written."""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from html import unescape
from urllib.parse import unquote_to_bytes

PACKED = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}")
"""What may be base64: a message's body in the broker is."""

DEPTH = 4
"""How often something may be packed into another thing."""


@dataclass
class Search:
    """marks: what must not be found, by name; places: how many bytes were looked through, by place."""

    marks: Mapping[str, str]
    places: dict[str, int] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)

    def through(self, place: str, content: bytes | str) -> None:
        """Look through something that was written or served."""
        data = content.encode() if isinstance(content, str) else content
        self.places[place] = self.places.get(place, 0) + len(data)
        readings = list(_readings(data, DEPTH))
        for name, mark in self.marks.items():
            for form in _forms(mark):
                if any(form in reading for reading in readings):
                    self.found.append(f"{name} in {place}")
                    break


def _forms(mark: str) -> set[bytes]:
    """Give a mark as it is, and as JSON and Python would write it."""
    return {mark.encode(), json.dumps(mark)[1:-1].encode(), repr(mark)[1:-1].encode()}


def _readings(data: bytes, depth: int) -> Iterator[bytes]:
    """Give data as it is and with each of its wrappings taken off."""
    yield data
    if depth == 0:
        return
    for unpacked in _unpacked(data):
        if unpacked and unpacked != data:
            yield from _readings(unpacked, depth - 1)


def _unpacked(data: bytes) -> Iterator[bytes]:
    if b"%" in data:
        yield unquote_to_bytes(data)
    if b"&" in data:
        yield unescape(data.decode("utf-8", "replace")).encode()
    with suppress(OSError, EOFError, zlib.error):
        yield gzip.decompress(data)
    with suppress(zlib.error):
        yield zlib.decompress(data)
    packed = [_plain(run) for run in PACKED.findall(data)]
    yield b"\n".join(one for one in packed if one)


def _plain(run: bytes) -> bytes:
    """Give what base64 stands for; nothing where it is no text at all."""
    for form in (run, run.translate(bytes.maketrans(b"-_", b"+/"))):
        body = form.rstrip(b"=")
        with suppress(binascii.Error, ValueError):
            plain = base64.b64decode(body + b"=" * (-len(body) % 4), validate=True)
            if sum(byte >= 128 for byte in plain) * 4 < len(plain):  # text, mostly
                return plain
    return b""

"""What a page holds, taken apart as its own scripts do."""

from __future__ import annotations

import base64
import html
import json
import re
import zlib

import numpy as np

from glasshead import Read

# Whatever a page tells of, of texts of at least five tokens.
EVERY = Read(
    lse=True, entropy=True, max=True, top=3, received=True, rows=[-1, 0], segments=[2, 5], blocks=2, distance=True,
    first=True, previous=True, self_weight=True,
)  # fmt: skip


def data_of(page: str) -> dict:
    """What a reader sees first."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(found)


def packed(page: str, name: str) -> np.ndarray:
    """The bytes that belong to a layer or a head."""
    (found,) = re.findall(f'<script type="text/plain" id="packed-{name}">(.*?)</script>', page)
    return np.frombuffer(zlib.decompress(base64.b64decode(found), wbits=-15), np.uint8)


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def names_of(data: dict) -> list[str]:
    """Every token as the page shows it; its places count UTF-16 units, as JavaScript does."""
    units = data["text"].encode("utf-16-le")
    tokens = data["tokens"]
    names = [
        units[2 * start : 2 * end].decode("utf-16-le")
        for start, end in zip(tokens["start"], tokens["end"], strict=True)
    ]
    for at, name in tokens["names"]:
        names[at] = name
    return names


def framed(shown: str) -> str:
    """The page in the frame that a notebook shows."""
    (found,) = re.findall(r'<iframe sandbox="allow-scripts" [^>]*srcdoc="([^"]*)">', shown)
    return html.unescape(found)

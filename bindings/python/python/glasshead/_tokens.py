"""Token ids as the text that they are of, as far as a tokenizer can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby, takewhile
from operator import eq
from typing import Any, Protocol, TypeAlias

# Name, first byte in the text, byte after the last one, and what the token is there for: text, answer, special.
Token: TypeAlias = tuple[str, int, int, str]


class Tokenizer(Protocol):
    """One of transformers."""

    all_special_ids: list[int]

    def decode(self, token_ids: Any, **options: Any) -> Any: ...
    def convert_ids_to_tokens(self, ids: Any) -> Any: ...


def numbered(names: Sequence[str], answer: int) -> tuple[str, list[Token]]:
    """Tokens without a text; those from ``answer`` on were written by the model."""
    return "", [(name, 0, 0, "answer" if at >= answer else "text") for at, name in enumerate(names)]


def spelled(ids: Sequence[int], answer: int, tokenizer: Tokenizer) -> tuple[str, list[Token]]:
    """The text of all tokens, and where each stands in it. Special tokens have a name and no bytes."""
    if not (hasattr(tokenizer, "all_special_ids") and hasattr(tokenizer, "convert_ids_to_tokens")):
        raise TypeError(f"tokenizer is {type(tokenizer).__name__}\nhint: give that of the model, from transformers")
    special = set(tokenizer.all_special_ids)
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special |= {one for one, token in added.items() if getattr(token, "special", False)}
    decode = partial(tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    text: list[str] = []
    tokens: list[Token] = []
    at = 0
    for is_special, run in groupby(ids, special.__contains__):
        several = list(run)
        for piece, count in [("", 1) for _ in several] if is_special else pieces(decode, several):
            text.append(piece)
            end = at + len(piece.encode())
            for one in ids[len(tokens) : len(tokens) + count]:
                role = "answer" if len(tokens) >= answer else "special" if is_special else "text"
                name = piece or tokenizer.convert_ids_to_tokens(one) or f"#{one}"
                tokens.append((name, at, end, role))
            at = end
    return "".join(text), tokens


def pieces(decode: Callable[[list[int]], str], ids: Sequence[int]) -> Iterator[tuple[str, int]]:
    """What tokens add to the text, and of how many tokens it is: those that hold parts of one character show the whole
    of it. As ``decode_after`` of the command."""
    # What stands before decides about blanks: many decoders drop one at the beginning.
    context: list[int] = []
    pending = 0
    for at, one in enumerate(ids):
        before = decode(context[: len(context) - pending])
        context.append(one)
        pending += 1
        after = decode(context)
        # A character is whole once no sign for a broken one stands at the end; none has more than four bytes.
        if after.endswith("\ufffd") and pending < 4 and at + 1 < len(ids):
            continue
        known = sum(takewhile(bool, map(eq, before, after)))
        yield after[known:], pending
        context = context[-pending:]
        pending = 0

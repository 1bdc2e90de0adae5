"""``glasshead.capture``: what the layers of a model of transformers look at, while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _native
from ._captured import Captured, Place
from ._ids import Ids
from ._read import Read

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from ._attended import Attended
    from ._masks import Visible

# As long as no text is.
LONGEST = 1 << 30
# Who watches a layer. Models are told apart by their layers, so that threads need not be.
WATCHING: dict[Module, Capture] = {}


def capture(
    model: Module,
    read: Read | str = "entropy,top=8,received",
    layers: Iterable[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Capture:
    """Reads out a model while the block runs, with glasshead as its attention; then it has its own again.

    >>> with glasshead.capture(model, read="entropy,top=8") as seen, torch.no_grad():
    ...     model(**inputs)                     # or model.generate(**inputs)
    >>> seen[3].entropy                         # [batch, heads, queries] of layer 3
    >>> seen["cross", 0].top_index              # models with several kinds of layers: "encoder", "decoder", "cross"

    ``layers`` and ``heads`` say which are kept, all by default; −1 is the last one. What is read of several passes
    over one text, a prompt and what the model writes on, is put together to that of the whole.
    """
    check(read)
    return Capture(model, read, layers, heads)


def check(read: Read | str) -> None:
    """Refuses what is not the same for every text, and what no text has."""
    if not isinstance(read, str):
        return
    if "all" in [item.strip() for item in read.split(",")]:
        raise ValueError('read is "all", which depends on the length of a text\nhint: name the readouts')
    _native.adds_up_queries(read, (1, 1, LONGEST, LONGEST))


def watching(module: Module) -> Capture | None:
    """Who watches this layer."""
    return WATCHING.get(module)


class Capture:
    """A model that is to be read out in a ``with`` block."""

    def __init__(
        self, model: Module, read: Read | str, layers: Iterable[int] | None, heads: Sequence[int] | None
    ) -> None:
        if not hasattr(model, "set_attn_implementation"):
            raise TypeError(f"{type(model).__name__} is no model of transformers\nhint: give a PreTrainedModel")
        self.read = read
        self.captured = Captured(model, read, heads)
        self.places = {module: Place.of(model, name) for name, module in model.named_modules()}
        wanted = None if layers is None else list(layers)
        self.wanted = [module for module, place in self.places.items() if wanted is None or place.is_one_of(wanted)]
        if wanted and not self.wanted:
            raise ValueError(f"layers is {wanted} and the model has none of them\nhint: layers are counted from 0")
        self.before: list[tuple[Any, str]] | None = None
        self.ids = Ids(model, self.captured.shelf)

    def __enter__(self) -> Captured:
        from .transformers import NAME, register

        if self.before is not None:
            raise RuntimeError("this capture is closed\nhint: every with block needs a glasshead.capture(…) of its own")
        if any(module in WATCHING for module in self.wanted):
            raise RuntimeError("this model is being captured already\nhint: end the other with block first")
        register()
        configs = {id(config): config for module in self.places if (config := getattr(module, "config", None))}
        self.before = [
            (config, config._attn_implementation_internal)
            for config in configs.values()
            if hasattr(config, "_attn_implementation_internal")
        ]
        # Some versions of transformers leave out parts that have a config of their own.
        for module in self.places:
            if hasattr(module, "set_attn_implementation"):
                module.set_attn_implementation(NAME)
        self.ids.start()
        WATCHING.update(dict.fromkeys(self.wanted, self))
        return self.captured

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for module in self.wanted:
            del WATCHING[module]
        self.ids.stop()
        for config, attention in self.before or []:
            # Not through its property, which would set the parts of a config too.
            config._attn_implementation_internal = attention

    def see(self, module: Module, seen: Attended[Tensor], key: Tensor, visible: Visible | None) -> None:
        """Keeps what a layer looked at."""
        self.captured.keep(self.places[module], seen, key, visible, self.ids.of(module))

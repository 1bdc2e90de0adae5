"""The token ids that a model is reading."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._shelf import Shelf

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.utils.hooks import RemovableHandle

NAME = "input_ids"


class Ids:
    """Notes the ``input_ids`` of every part of a model that takes some, while it runs."""

    def __init__(self, model: Module, shelf: Shelf) -> None:
        self.shelf = shelf
        self.names = {module: name for name, module in model.named_modules()}
        # The decoder of a translator reads another text than the model: what it did not say is not known.
        self.innermost = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
        self.running: list[tuple[str, Tensor | None]] = []
        self.hooks: list[RemovableHandle] = []

    def start(self) -> None:
        """Listens to the model."""
        for module, name in self.names.items():
            arguments = arguments_of(module)
            if NAME in arguments:
                self.listen(module, name, arguments.index(NAME))

    def listen(self, module: Module, name: str, place: int) -> None:
        """Notes what comes as this argument, by its name or place, until the call has ended, whatever its end."""

        def begins(_: Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            ids = args[place] if len(args) > place else options.get(NAME)
            if isinstance(ids, Tensor) and ids.dim() == 2 and ids.is_cpu and not ids.is_floating_point():
                self.running.append((name, self.shelf.keep(ids.detach().to(torch.int64))))
            else:
                self.running.append((name, None))

        def ends(*_: Any) -> None:
            self.running.pop()

        self.hooks.append(module.register_forward_pre_hook(begins, with_kwargs=True))
        self.hooks.append(module.register_forward_hook(ends, always_call=True))

    def stop(self) -> None:
        """Leaves the model as it was."""
        for hook in self.hooks:
            hook.remove()
        self.hooks.clear()
        self.running.clear()

    def of(self, layer: Module) -> Tensor | None:
        """``[batch, tokens]``: what the part around this layer reads; None where it was given vectors."""
        inside = f"{self.names[layer]}."
        around = [ids for name, ids in reversed(self.running) if not name or inside.startswith(f"{name}.")]
        if self.innermost:
            around = around[:1]
        return next((ids for ids in around if ids is not None), None)


def arguments_of(module: Module) -> list[str]:
    """Their names, in their order."""
    try:
        return list(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):
        # What is not written in Python does not say.
        return []

"""What tasks and actors of Ray share."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayTaskError

from . import _native


def use_threads(count: int) -> None:
    """As many as Ray has set aside: a worker shares its machine with others."""
    if _native.get_num_threads() != count:
        _native.set_num_threads(count)


def get(refs: list[Any]) -> Any:
    """What tasks have given. An error of ours is raised as it is, without the way it came."""
    try:
        return ray.get(refs)
    except RayTaskError as error:
        if isinstance(error.cause, (TypeError, ValueError)):
            raise error.cause from None
        raise

"""Between public functions and kernels: namespaces of the rungs, vmap by folding, who is asked."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from saccade import _load
from saccade.ops._select import constant

_TEACHERS: dict[str, Callable[[str], None]] = {}


def teach_vmap(operator: str, teach: Callable[[str], None]) -> None:
    """Have `teach(namespace)` register the vmap rules of an operator's kernels.

    Those of the compiled library are there now, Triton's are once its module has been imported.
    """
    _TEACHERS[operator] = teach
    if _load.has("_C"):
        teach("saccade")


@functools.cache
def _teach_triton(operator: str) -> None:
    _TEACHERS[operator]("saccade_triton")


@constant
def _triton_is_ready(operator: str) -> bool:
    _teach_triton(operator)
    return True


def namespace(operator: str, rung: str) -> Any:
    """Where the kernels of a rung are."""
    if rung == "triton" and _triton_is_ready(operator):
        return torch.ops.saccade_triton
    return torch.ops.saccade


def fold_batch(names: Iterable[str]) -> Callable[[str], None]:
    """For :func:`teach_vmap`: the mapped axis folds into the batch, every tensor's first axis."""
    kept = tuple(names)

    def teach(space: str) -> None:
        for name in kept:
            op = getattr(getattr(torch.ops, space), name).default
            torch.library.register_vmap(op, _folding_rule(op))

    return teach


def _folding_rule(op: Callable[..., Any]) -> Callable[..., Any]:
    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        size = info.batch_size

        def fold(given: Any, mapped: int | None) -> Any:
            if not isinstance(given, Tensor):
                return given
            if mapped is None:
                given, mapped = given.expand(size, *given.shape), 0
            return given.movedim(mapped, 0).flatten(0, 1)

        results = op(*(fold(a, d) for a, d in zip(args, in_dims, strict=True)))
        if isinstance(results, Tensor):
            return results.unflatten(0, (size, -1)), 0
        return tuple(r.unflatten(0, (size, -1)) for r in results), (0,) * len(results)

    return rule


def wanted(*tensors: Tensor | None) -> bool:
    """Whether anybody may ask for a gradient."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)

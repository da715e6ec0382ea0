"""A kernel launch as data: what the GPU runs is also what is compiled where there is no GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel
from triton.compiler import compile as compile_source

POINTER_NAMES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float64: "*fp64",
    torch.int32: "*i32",
    torch.uint8: "*u8",
}


@dataclass(frozen=True)
class Launch:
    """One kernel with its grid, its run-time arguments and its compile-time constants.

    Args:
        kernel: a `triton.jit` function, or the interpreter's stand-in for one.
        grid: number of programs.
        arguments: tensors, integers, floats, None, or tuples of integers, by parameter name.
        constants: values of the `tl.constexpr` parameters, by name.
        num_warps: warps of a program.
        num_stages: depth of the software pipeline over the loop.
        contract: let the compiler fuse a product and a sum, which rounds once instead of twice.
    """

    kernel: Any
    grid: int
    arguments: dict[str, Any]
    constants: dict[str, Any]
    num_warps: int
    num_stages: int
    contract: bool = True

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "enable_fp_fusion": self.contract,
        }

    @property
    def name(self) -> str:
        return str(self.kernel.__name__)

    def run(self) -> None:
        """Start the programs on the current stream; a grid of zero programs does nothing."""
        if self.grid > 0:
            self.kernel[(self.grid,)](**self.arguments, **self.constants, **self._options)

    def compile(self, capability: int) -> CompiledKernel:
        """Compile to a cubin for a compute capability (80, 90); needs no GPU, only the compiler."""
        types: dict[str, Any] = {}
        constants: dict[tuple[int, ...], Any] = {}
        facts: dict[tuple[int, ...], list[list[Any]]] = {}
        for index, parameter in enumerate(self.kernel.params):
            name = parameter.name
            if name in self.constants:
                types[name] = "constexpr"
                constants[(index,)] = self.constants[name]
            else:
                value, specialize = self.arguments[name], not parameter.do_not_specialize
                types[name] = _describe(value, (index,), specialize, constants, facts)
        source = ASTSource(self.kernel, types, constants, facts)
        target = GPUTarget("cuda", capability, 32)
        return compile_source(source, target=target, options=self._options)


def _describe(
    value: Any,
    path: tuple[int, ...],
    specialize: bool,
    constants: dict[tuple[int, ...], Any],
    facts: dict[tuple[int, ...], list[list[Any]]],
) -> Any:
    """Type of an argument as the launcher finds it.

    The value 1 is a constant and multiples of 16 are noted, in tuples always: `do_not_specialize`
    does not reach into them.
    """
    if isinstance(value, tuple):
        return tuple(
            _describe(item, (*path, index), True, constants, facts)
            for index, item in enumerate(value)
        )
    if value is None or (specialize and isinstance(value, int) and value == 1):
        constants[path] = value
        return "constexpr"
    if isinstance(value, float):
        return "fp32"
    if isinstance(value, torch.Tensor) or (specialize and value % 16 == 0):
        facts[path] = [["tt.divisibility", 16]]
    if isinstance(value, torch.Tensor):
        return POINTER_NAMES[value.dtype]
    return "i32" if -(2**31) <= value < 2**31 else "i64"


@contextlib.contextmanager
def device_of(tensor: torch.Tensor) -> Iterator[None]:
    """Make the tensor's GPU current: a launch goes there, wherever its arguments are."""
    if tensor.is_cuda:
        with torch.cuda.device(tensor.device):
            yield
    else:
        yield


def interpreted(kernel: Callable[..., Any]) -> bool:
    """Whether the kernel runs on the CPU: TRITON_INTERPRET=1 was set when it was defined."""
    return not hasattr(kernel, "cache_key")

"""The registered schemas are those of csrc/schemas.cpp, on every rung."""

from __future__ import annotations

import importlib
import importlib.util
import re

import pytest
import torch

from saccade import _load

from .process import ROOT

pytestmark = pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))


def _declared() -> dict[str, str]:
    """Every m.def(...) of the file, its adjacent string literals joined."""
    source = (ROOT / "csrc/schemas.cpp").read_text()
    calls = re.findall(r'm\.def\(((?:\s*"[^"]*")+)\s*\)', source)
    assert len(calls) == source.count("m.def("), "a schema that this test cannot read"
    schemas = ("".join(re.findall(r'"([^"]*)"', call)) for call in calls)
    return {schema.partition("(")[0]: schema for schema in schemas}


DECLARED = _declared()
# Tensors that hold constants or integers: no gradient comes back for them.
CONSTANTS = {"constants", "edges", "init_f", "init_g", "plan", "radii", "seq_idx"}


def test_every_declared_operator_is_registered_and_no_other() -> None:
    registered = {
        name.removeprefix("saccade::")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("saccade::")
    }
    assert registered == set(DECLARED)


@pytest.mark.parametrize("name", DECLARED)
def test_the_compiled_operator_has_the_declared_schema(name: str) -> None:
    schema = getattr(torch.ops.saccade, name).default._schema
    assert str(schema) == str(torch._C.parse_schema(f"saccade::{DECLARED[name]}"))


# No model needs spike_linear on a GPU: what it speeds up is a product of bits and weights on the
# CPU. A network simplex has no parallel steps.
CPU_ONLY = {"emd_forward", "isa", "spike_linear"}


@pytest.mark.parametrize("name", [name for name in DECLARED if name not in CPU_ONLY])
@pytest.mark.parametrize(("device", "library"), [("CPU", "_C"), ("CUDA", "_C_cuda")])
def test_every_operator_has_its_kernel(name: str, device: str, library: str) -> None:
    if not _load.has(library):
        pytest.skip(_load.reason(library))
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"saccade::{name}", device)


# The module of each prefix; the list form of gem has no Triton kernel.
TRITON = {
    "causal": "scan",
    "gem": "gem",
    "kan": "kan",
    "lif": "spiking",
    "logpolar": "logpolar",
    "na": "neighborhood_attention",
    "selective": "scan",
    "ssd": "scan",
}


@pytest.mark.parametrize(
    "name",
    [name for name in DECLARED if name.partition("_")[0] in TRITON and name != "gem_project_"],
)
def test_the_triton_operator_has_the_same_schema(name: str) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    importlib.import_module(f"saccade.triton_kernels.{TRITON[name.partition('_')[0]]}")
    schema = getattr(torch.ops.saccade_triton, name).default._schema
    assert str(schema) == str(torch._C.parse_schema(f"saccade_triton::{DECLARED[name]}"))


@pytest.mark.parametrize("name", [name for name in DECLARED if name.endswith("_backward")])
def test_a_backward_returns_one_gradient_for_each_differentiable_input(name: str) -> None:
    forward = torch._C.parse_schema(DECLARED[name.replace("_backward", "_forward")])
    backward = torch._C.parse_schema(DECLARED[name])
    tensors = [
        argument.name
        for argument in forward.arguments
        if "Tensor" in str(argument.type) and argument.name not in CONSTANTS
    ]
    assert [result.name for result in backward.returns] == [f"grad_{tensor}" for tensor in tensors]

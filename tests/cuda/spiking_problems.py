"""Problems of spiking neurons for the CUDA kernels, and what the reference finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from saccade.reference.spiking import SURROGATES, lif

Tensors = dict[str, torch.Tensor]
PARAMETERS = ("tau", "v_threshold", "weight", "bias")
GRADIENTS = ("x", "v0", *PARAMETERS, "residual")
INTEGRATE, DECAY_INPUT, LEAK = range(3)


@dataclass(frozen=True)
class Case:
    """A call of lif_forward on x [T, A, C, I]; the fields that are names of tensors say whether
    they are there (of tau and v_threshold: "one" or "channel").
    """

    name: str
    steps: int = 5
    sizes: tuple[int, int, int] = (2, 3, 8)
    charge: int = DECAY_INPUT
    hard: bool = True
    detach: bool = False
    surrogate: str = "atan"
    tau: str = ""
    v_threshold: str = ""
    affine: bool = False
    residual: bool = False
    v0: bool = True
    store_v: bool = False
    kind: int = 0
    row: int = 8
    numbers: dict[str, float] = field(default_factory=dict)

    def scalars(self) -> dict[str, Any]:
        """The arguments that are no tensors, in the order of the schema."""
        return {
            "tau_value": self.numbers.get("tau", 2.0),
            "v_threshold_value": self.numbers.get("v_threshold", 1.0),
            "v_reset": self.numbers.get("v_reset", -0.1) if self.hard else 0.0,
            "alpha": self.numbers.get("alpha", 1.7),
            "charge": self.charge,
            "hard_reset": self.hard,
            "detach_reset": self.detach,
            "surrogate": list(SURROGATES).index(self.surrogate),
            "smooth": False,
        }


def ids(case: Case) -> str:
    return case.name


CASES = [
    Case("plain"),
    Case("one-step", steps=1, v0=False, v_threshold="one"),
    Case("no-step", steps=0),
    Case("segment", steps=16, hard=False),
    Case("two-segments", steps=17, tau="one"),
    Case("three-segments", steps=33, sizes=(1, 2, 5), charge=LEAK, tau="channel", affine=True),
    Case("integrate", charge=INTEGRATE, v_threshold="channel", v0=False),
    Case("integrate-soft", charge=INTEGRATE, hard=False, v_threshold="one", store_v=True),
    Case("leak", charge=LEAK, numbers={"tau": 3.0}),
    Case("leak-soft-detached", charge=LEAK, hard=False, detach=True, tau="one", v0=False),
    Case("decay-soft", hard=False, tau="channel", v_threshold="channel", store_v=True),
    Case("detached", detach=True, numbers={"tau": 1.9}, store_v=True),
    Case("affine", affine=True, numbers={"tau": 4.0}),
    Case("everything", sizes=(3, 4, 4), tau="channel", v_threshold="channel", affine=True,
         residual=True, store_v=True),
    Case("everything-soft", sizes=(3, 3, 7), hard=False, detach=True, tau="one", v_threshold="one",
         affine=True, residual=True, store_v=True),
    Case("channels-last", sizes=(37, 12, 1), tau="channel", affine=True, residual=True),
    Case("channels-last-odd", sizes=(130, 5, 1), tau="one", v_threshold="channel"),
    Case("one-neuron", sizes=(1, 1, 1), tau="one"),
    Case("many-columns", sizes=(2, 1, 1041), steps=2, tau="one"),
    Case("many-aligned-columns", sizes=(2, 2, 600), steps=2, v_threshold="channel"),
    Case("no-neuron", sizes=(0, 3, 8), tau="channel", affine=True),
    *(Case(name, steps=3, surrogate=name, v_threshold="one") for name in SURROGATES),
]  # fmt: skip
# Spikes as bytes and as bits have no gradient; the voltages have.
PACKED = [
    Case("bytes", kind=1),
    Case("bytes-odd", kind=1, sizes=(3, 2, 5), affine=True),
    Case("bits", kind=2, row=8),
    Case("bits-of-pixels", kind=2, sizes=(2, 3, 48), row=12, residual=True),
    Case("bits-odd-row", kind=2, sizes=(2, 3, 33), row=11, tau="channel"),
    Case("bits-of-one", kind=2, sizes=(2, 3, 5), row=1),
    Case("bits-of-channels", kind=2, sizes=(5, 20, 1), row=20, v_threshold="channel"),
    Case("bits-long-row", kind=2, sizes=(2, 1, 700), row=700, steps=2),
]


def make(case: Case, dtype: torch.dtype, device: str = "cpu") -> Tensors:
    """Inputs and gradients of the results."""
    generator = torch.Generator().manual_seed(len(case.name) + case.steps)
    shape, channels = (case.steps, *case.sizes), case.sizes[1]

    def normal(*sizes: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
        return torch.randn(sizes, generator=generator) * scale + shift

    def parameter(which: str) -> int:
        return 1 if which == "one" else channels

    tensors = {"x": normal(*shape, scale=1.5, shift=0.8)}
    if case.v0:
        tensors["v0"] = normal(*case.sizes)
    if case.tau:
        tensors["tau"] = normal(parameter(case.tau)).abs() + 1.3
    if case.v_threshold:
        tensors["v_threshold"] = normal(parameter(case.v_threshold), scale=0.2, shift=0.9)
    if case.affine:
        tensors["weight"] = normal(channels, scale=0.5, shift=1.0)
        tensors["bias"] = normal(channels, scale=0.3)
    if case.residual:
        tensors["residual"] = normal(*shape, scale=0.5)
    if case.kind == 0:
        tensors["grad_spikes"] = normal(*shape)
    tensors["grad_v_last"] = normal(*case.sizes)
    if case.store_v:
        tensors["grad_v_seq"] = normal(*shape)
    for name in ("x", "residual", "grad_spikes"):
        if name in tensors:
            tensors[name] = tensors[name].to(dtype)
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def arguments(case: Case, tensors: Tensors) -> list[Any]:
    """The arguments of lif_forward."""
    names = ("x", "v0", *PARAMETERS, "residual")
    return [
        *(tensors.get(name) for name in names),
        *case.scalars().values(),
        case.store_v,
        case.kind,
        case.row,
    ]


def expected(case: Case, tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Results and gradients by the reference."""
    outputs = dict(zip(("spikes", "v_last", "v_seq"), lif(*arguments(case, tensors)), strict=True))
    leaves = {
        name: tensor.clone().requires_grad_()
        for name, tensor in tensors.items()
        if not name.startswith("grad_")
    }
    results = lif(*arguments(case, {**tensors, **leaves}))
    pairs = [
        (result, tensors[name])
        for result, name in zip(results, ("grad_spikes", "grad_v_last", "grad_v_seq"), strict=True)
        if name in tensors and result.requires_grad
    ]
    if not pairs:
        return outputs, {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    grads = torch.autograd.grad(
        [result for result, _ in pairs], list(leaves.values()), [grad for _, grad in pairs],
        allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    return outputs, dict(zip(leaves, grads, strict=True))

"""The quantum layer: it is the operator with parameters, and it learns."""

from __future__ import annotations

import pytest
import torch

from saccade.nn import QuantumLayer
from saccade.ops import Program, input_angle, instruction, param_angle, statevector_expval


def program() -> Program:
    steps = [instruction("ry", q, input_angle(q)) for q in range(3)]
    steps += [instruction("rx", q, param_angle(q)) for q in range(3)]
    steps += [instruction("cx", (q, (q + 1) % 3)) for q in range(3)]
    return Program(3, tuple(steps))


def test_it_is_the_operator() -> None:
    layer = QuantumLayer(program(), ["ZII", {"XXI": 0.5, "IIZ": 2.0}])
    x = torch.randn(2, 4, 3)
    expected = statevector_expval(program(), layer.weight, x, ["ZII", {"XXI": 0.5, "IIZ": 2.0}])
    assert torch.equal(layer(x), expected)
    assert layer(x.double()).dtype == torch.float64
    assert QuantumLayer(program())(x).shape == (2, 4, 3)
    assert set(layer.state_dict()) == {"weight"}


def test_it_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = QuantumLayer(program(), ["ZII"], generator=generator)
    x = torch.randn(64, 3, generator=generator)
    with torch.no_grad():
        target = statevector_expval(program(), torch.tensor([0.3, -1.2, 0.8]), x, ["ZII"])
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    losses = []
    for _ in range(60):
        loss = (layer(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("bell",), TypeError, "program must be a saccade.ops.Program, got str"),
        ((program(), ["ZZ"]), ValueError, "each of 3 wires, got 'ZZ'"),
    ],
    ids=["program", "observable"],
)
def test_errors(arguments: tuple[object, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        QuantumLayer(*arguments)  # type: ignore[arg-type]

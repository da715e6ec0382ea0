"""Draw docs/assets/quantum-cutting.svg: what sampling the terms of a cut circuit costs.

python tools/quantum_figure.py
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from saccade.quantum import Circuit, CutCircuit, cut

OUT = Path(__file__).parents[1] / "docs/assets/quantum-cutting.svg"
WIRES = 8
WORDS = ["I" * w + "ZZ" + "I" * (WIRES - 2 - w) for w in range(WIRES - 1)]
NUMBERS = (10, 30, 100, 300, 1000, 3000)
RUNS = 30


def chain(crossing: str) -> Circuit:
    """Two layers of rotations, with neighbours entangled once or twice across the middle."""
    circuit = Circuit(WIRES)
    for layer in range(2):
        for wire in range(WIRES):
            circuit.ry(wire, 0.4 + 0.37 * wire + layer)
        for wire in range(WIRES - 1):
            if wire != WIRES // 2 - 1:
                circuit.cx(wire, wire + 1)
            elif crossing == "wire" and layer == 0:
                circuit.cx(wire, wire + 1).cut_wire(wire + 1)
            elif crossing == "gates" or (crossing == "gate" and layer == 0):
                circuit.cx(wire, wire + 1)
    return circuit


def errors(pieces: CutCircuit, exact: torch.Tensor, generator: torch.Generator) -> list[float]:
    """Root mean square error over observables and runs, for each number of samples."""
    found = []
    for number in NUMBERS:
        runs = [
            pieces.expval(observables=WORDS, num_samples=number, generator=generator) - exact
            for _ in range(RUNS)
        ]
        found.append(torch.stack(runs).square().mean().sqrt().item())
    return found


def main() -> None:
    """Measure and draw."""
    half = WIRES // 2
    cases = {
        "one CX": ("gate", "A" * half + "B" * half),
        "one wire": ("wire", None),
        "two CX": ("gates", "A" * half + "B" * half),
    }
    generator = torch.Generator().manual_seed(0)
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with rc_context(style | {"svg.hashsalt": "saccade", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        panel = figure.subplots()
        for k, (name, (crossing, labels)) in enumerate(cases.items()):
            circuit = chain(crossing)
            pieces = cut(circuit, labels)
            exact = circuit.expval(observables=WORDS)
            rest = (pieces.expval(observables=WORDS) - exact).abs().max().item()
            gamma = math.sqrt(pieces.overhead)
            print(f"{name}: gamma {gamma:.3g}, exact mode off by {rest:.1e}, {pieces!r}")
            label = f"{name} cut, gamma {gamma:.3g}"
            measured = errors(pieces, exact, generator)
            panel.loglog(NUMBERS, measured, "o-", color=f"C{k}", label=label)
            bound = [gamma / math.sqrt(number) for number in NUMBERS]
            panel.loglog(NUMBERS, bound, "--", color=f"C{k}", alpha=0.5)
        panel.set(xlabel="sampled terms", ylabel="error of an expectation value")
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
        FigureCanvasSVG(figure).print_svg(str(OUT), metadata={"Date": None})


if __name__ == "__main__":
    main()

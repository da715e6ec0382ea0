"""The methods that append one gate each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from saccade.quantum._angle import AngleLike

Self = TypeVar("Self", bound="GateMethods")


class GateMethods:
    """One method a gate; controls come first, and each returns the circuit."""

    def gate(
        self: Self,
        name: str,
        wires: int | Sequence[int],
        *angles: AngleLike,
        controls: Sequence[int] = (),
        pauli: str = "",
        matrix: Any = None,
    ) -> Self:
        """Append any gate by its name."""
        raise NotImplementedError

    def id(self: Self, wire: int) -> Self:
        """The identity."""
        return self.gate("id", wire)

    def h(self: Self, wire: int) -> Self:
        """Hadamard."""
        return self.gate("h", wire)

    def x(self: Self, wire: int) -> Self:
        """Pauli X."""
        return self.gate("x", wire)

    def y(self: Self, wire: int) -> Self:
        """Pauli Y."""
        return self.gate("y", wire)

    def z(self: Self, wire: int) -> Self:
        """Pauli Z."""
        return self.gate("z", wire)

    def s(self: Self, wire: int) -> Self:
        """diag(1, i)."""
        return self.gate("s", wire)

    def sdg(self: Self, wire: int) -> Self:
        """diag(1, -i)."""
        return self.gate("sdg", wire)

    def t(self: Self, wire: int) -> Self:
        """diag(1, e^(i pi/4))."""
        return self.gate("t", wire)

    def tdg(self: Self, wire: int) -> Self:
        """diag(1, e^(-i pi/4))."""
        return self.gate("tdg", wire)

    def sx(self: Self, wire: int) -> Self:
        """The square root of X."""
        return self.gate("sx", wire)

    def sxdg(self: Self, wire: int) -> Self:
        """The inverse of sx."""
        return self.gate("sxdg", wire)

    def rx(self: Self, wire: int, t: AngleLike) -> Self:
        """exp(-i t X / 2)."""
        return self.gate("rx", wire, t)

    def ry(self: Self, wire: int, t: AngleLike) -> Self:
        """exp(-i t Y / 2)."""
        return self.gate("ry", wire, t)

    def rz(self: Self, wire: int, t: AngleLike) -> Self:
        """exp(-i t Z / 2)."""
        return self.gate("rz", wire, t)

    def p(self: Self, wire: int, t: AngleLike) -> Self:
        """diag(1, e^(i t))."""
        return self.gate("p", wire, t)

    def u(self: Self, wire: int, t: AngleLike, p: AngleLike, q: AngleLike) -> Self:
        """[[c, -e^(iq) s], [e^(ip) s, e^(i(p+q)) c]] with c = cos t/2, s = sin t/2; also u3."""
        return self.gate("u3", wire, t, p, q)

    def rot(self: Self, wire: int, a: AngleLike, b: AngleLike, c: AngleLike) -> Self:
        """RZ(c) RY(b) RZ(a)."""
        return self.gate("rot", wire, a, b, c)

    def cx(self: Self, control: int, wire: int) -> Self:
        """X under a control."""
        return self.gate("cx", (control, wire))

    def cy(self: Self, control: int, wire: int) -> Self:
        """Y under a control."""
        return self.gate("cy", (control, wire))

    def cz(self: Self, control: int, wire: int) -> Self:
        """Z under a control."""
        return self.gate("cz", (control, wire))

    def ch(self: Self, control: int, wire: int) -> Self:
        """Hadamard under a control."""
        return self.gate("ch", (control, wire))

    def cs(self: Self, control: int, wire: int) -> Self:
        """diag(1, i) under a control."""
        return self.gate("cs", (control, wire))

    def csdg(self: Self, control: int, wire: int) -> Self:
        """diag(1, -i) under a control."""
        return self.gate("csdg", (control, wire))

    def csx(self: Self, control: int, wire: int) -> Self:
        """The square root of X under a control."""
        return self.gate("csx", (control, wire))

    def crx(self: Self, control: int, wire: int, t: AngleLike) -> Self:
        """RX under a control."""
        return self.gate("crx", (control, wire), t)

    def cry(self: Self, control: int, wire: int, t: AngleLike) -> Self:
        """RY under a control."""
        return self.gate("cry", (control, wire), t)

    def crz(self: Self, control: int, wire: int, t: AngleLike) -> Self:
        """RZ under a control."""
        return self.gate("crz", (control, wire), t)

    def cp(self: Self, control: int, wire: int, t: AngleLike) -> Self:
        """diag(1, 1, 1, e^(i t))."""
        return self.gate("cp", (control, wire), t)

    def cu3(self: Self, control: int, wire: int, t: AngleLike, p: AngleLike, q: AngleLike) -> Self:
        """The gate u under a control."""
        return self.gate("cu3", (control, wire), t, p, q)

    def swap(self: Self, first: int, second: int) -> Self:
        """Exchange two qubits."""
        return self.gate("swap", (first, second))

    def iswap(self: Self, first: int, second: int) -> Self:
        """Exchange two qubits, i on |01> and |10>."""
        return self.gate("iswap", (first, second))

    def ecr(self: Self, first: int, second: int) -> Self:
        """Echoed cross resonance, (X Z - Y X) / sqrt 2 in Qiskit's order of qubits."""
        return self.gate("ecr", (first, second))

    def rxx(self: Self, first: int, second: int, t: AngleLike) -> Self:
        """exp(-i t XX / 2)."""
        return self.gate("rxx", (first, second), t)

    def ryy(self: Self, first: int, second: int, t: AngleLike) -> Self:
        """exp(-i t YY / 2)."""
        return self.gate("ryy", (first, second), t)

    def rzz(self: Self, first: int, second: int, t: AngleLike) -> Self:
        """exp(-i t ZZ / 2)."""
        return self.gate("rzz", (first, second), t)

    def rzx(self: Self, first: int, second: int, t: AngleLike) -> Self:
        """exp(-i t ZX / 2)."""
        return self.gate("rzx", (first, second), t)

    def pauli_rot(self: Self, pauli: str, wires: Sequence[int], t: AngleLike) -> Self:
        """exp(-i t P / 2), a letter of IXYZ a wire."""
        return self.gate("pauli_rot", wires, t, pauli=pauli)

    def ccx(self: Self, first: int, second: int, wire: int) -> Self:
        """X under two controls."""
        return self.gate("ccx", (first, second, wire))

    def ccz(self: Self, first: int, second: int, wire: int) -> Self:
        """Z under two controls."""
        return self.gate("ccz", (first, second, wire))

    def cswap(self: Self, control: int, first: int, second: int) -> Self:
        """Two qubits exchanged under a control."""
        return self.gate("cswap", (control, first, second))

    def unitary(self: Self, matrix: Any, wires: Sequence[int]) -> Self:
        """A 2**k x 2**k matrix on k <= 4 wires, the first the most significant."""
        return self.gate("unitary", wires, matrix=matrix)

    def global_phase(self: Self, t: AngleLike) -> Self:
        """e^(i t)."""
        return self.gate("gphase", (), t)

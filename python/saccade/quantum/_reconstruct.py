"""Running the parts of a cut circuit and joining what they give."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from saccade.ops import statevector, statevector_expval
from saccade.ops._statevector_program import Program
from saccade.quantum._partition import Part

if TYPE_CHECKING:
    from saccade.quantum.cutting import CutCircuit

MAX_TERMS = 2**20
MAX_VARIANTS = 2**22
MAX_CUTS = 25  # letters of einsum


class Evaluation:
    """One evaluation of a cut circuit."""

    def __init__(
        self,
        whole: CutCircuit,
        params: Tensor | None,
        inputs: Tensor | None,
        words: list[str],
        dtype: torch.dtype,
        options: dict[str, Any],
    ) -> None:
        self.whole, self.params, self.inputs = whole, params, inputs
        self.words, self.dtype, self.options = words, dtype, options
        given = next((t for t in (params, inputs) if t is not None), None)
        self.device = torch.device("cpu") if given is None else given.device

    def own_words(self, part: Part) -> tuple[list[str], list[int]]:
        """What a part measures: its different words, and which of them each whole word needs."""
        last = [count - 1 for count in self.whole.pieces]
        cut_out = [
            "".join(word[w] if k == last[w] else "I" for w, k in part.pieces) for word in self.words
        ]
        own = list(dict.fromkeys(cut_out))
        return own, [own.index(word) for word in cut_out]

    def evaluate(self, part: Part, rows: Tensor | None = None) -> Tensor:
        """Values [B or 1, R1, ..., Rk, U] of a part's words for every row of every table.

        With rows [M, k], one row a table, [B or 1, M, U].
        """
        # a part that reads no inputs has the same states for all samples
        inputs = self.inputs if part.reads else None
        batch = 1 if inputs is None else inputs.shape[0]
        n = len(part.pieces)
        shape: tuple[int, ...] = ()
        state: Tensor | None = None
        number = 0
        for segment in part.segments:
            repeated = _repeat(inputs, math.prod(shape))
            if isinstance(segment, Program):
                state = statevector(
                    segment, self.params, repeated, state=state, dtype=self.dtype, **self.options
                )
                continue
            table = self.whole.cuts[segment.cut].tables[segment.side]
            table = table.to(device=self.device, dtype=self.dtype)
            if state is None:
                state = torch.zeros(batch, 2**n, dtype=self.dtype, device=self.device)
                state[:, 0] = 1
            if rows is None:
                state = _apply(state, table, segment.wires, n)
                shape = (*shape, len(table))
            else:
                state = _apply_each(state, table[rows[:, number]], segment.wires, n, batch)
                shape = (len(rows),)
            number += 1
        own, _ = self.own_words(part)
        values = statevector_expval(
            part.last,
            self.params,
            _repeat(inputs, math.prod(shape)),
            own,
            state=state,
            dtype=self.dtype,
            **self.options,
        )
        return values.reshape(batch, *shape, len(own))

    def exact(self) -> Tensor:
        """Values [B or 1, T] of the whole words: the network of parts and cuts, contracted."""
        variants, cuts = self.whole.num_variants, len(self.whole.cuts)
        if variants > MAX_VARIANTS or cuts > MAX_CUTS:
            raise ValueError(
                f"the exact mode takes at most {MAX_CUTS} cuts and {MAX_VARIANTS} variants, got "
                f"{cuts} and {variants}: give num_samples."
            )
        letters = iter(string.ascii_letters.replace("b", "").replace("t", ""))
        axes = {(k, side): next(letters) for k in range(len(self.whole.cuts)) for side in (0, 1)}
        tensors: list[tuple[str, Tensor]] = []
        for part in self.whole.parts:
            values = self.evaluate(part)
            _, index = self.own_words(part)
            values = values[..., torch.tensor(index, device=values.device)]
            own = "".join(axes[end.cut, end.side] for end in part.ends)
            tensors.append((f"b{own}t", values))
        for k, found in enumerate(self.whole.cuts):
            functions = self.whole.functions(k, self.params, self.inputs).to(tensors[0][1])
            matrix = torch.tensordot(functions, found.matrices.to(functions), dims=([-1], [0]))
            matrix = matrix.reshape(-1, *matrix.shape[-2:], 1)
            tensors.append((f"b{axes[k, 0]}{axes[k, 1]}t", matrix))
        return _contract(tensors)

    def draw(
        self, num_samples: int | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Numbers of terms [M, number of cuts] and their weights [M] or [B, M]."""
        tables = [
            self.whole.coefficients(k, self.params, self.inputs)
            for k in range(len(self.whole.cuts))
        ]
        counts = [c.shape[-1] for c in tables]
        if num_samples is None:
            if math.prod(counts) > MAX_TERMS:
                raise ValueError(
                    f"shots without num_samples must have at most {MAX_TERMS} terms, "
                    f"got {math.prod(counts)}: give num_samples."
                )
            every = list(itertools.product(*map(range, counts)))
            chosen = torch.tensor(every, dtype=torch.long).reshape(len(every), len(counts))
            share = torch.ones(len(every), dtype=torch.float64)
        else:
            columns, chances = [], []
            for c in tables:
                size = c.detach().abs().reshape(-1, c.shape[-1]).mean(0).double().cpu()
                chance = size / size.sum()
                columns.append(
                    torch.multinomial(chance, num_samples, replacement=True, generator=generator)
                )
                chances.append(chance)
            drawn = torch.stack(columns, -1) if columns else torch.zeros(1, 0, dtype=torch.long)
            chosen, counted = torch.unique(drawn, dim=0, return_counts=True)
            share = counted.double() / counted.sum()
            for k, chance in enumerate(chances):
                share = share / chance[chosen[:, k]]
        weights: Tensor = share.to(self.device)
        for k, c in enumerate(tables):
            weights = weights * c[..., chosen[:, k].to(c.device)]
        return chosen, weights

    def some(
        self,
        chosen: Tensor,
        weights: Tensor,
        shots: int | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Values [B or 1, T] of the whole words from chosen terms [M, number of cuts]."""
        total: Tensor | None = None
        for part in self.whole.parts:
            values = self.local(part, chosen)
            if shots is not None:
                values = _measure(values.detach(), shots, generator)
            _, index = self.own_words(part)
            values = values[..., torch.tensor(index, device=values.device)]
            total = values if total is None else total * values
        whole = cast("Tensor", total)
        return (weights.reshape(-1, len(chosen), 1).to(whole) * whole).sum(1)

    def local(self, part: Part, chosen: Tensor) -> Tensor:
        """Values [B or 1, M, U] of a part's words under the local operations of terms."""
        keys = [
            tuple(
                (term.first, term.second)[end.side]
                for end in part.ends
                for term in (self.whole.cuts[end.cut].terms[int(row[end.cut])],)
            )
            for row in chosen
        ]
        # rows of the tables, and how the operations are made of them
        rows: dict[tuple[int, ...], int] = {}
        entries: list[tuple[int, int, float]] = []
        distinct = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        for key, number in distinct.items():
            nonzero = [[(r, c) for r, c in enumerate(vector) if c] for vector in key]
            for combination in itertools.product(*nonzero):
                row = tuple(r for r, _ in combination)
                weight = math.prod(c for _, c in combination)
                entries.append((number, rows.setdefault(row, len(rows)), weight))
        table = torch.tensor(list(rows), dtype=torch.long).reshape(len(rows), len(part.ends))
        values = self.evaluate(part, table.to(self.device))
        if not part.ends:
            values = values.reshape(values.shape[0], 1, -1)
        mix = torch.zeros(len(distinct), len(rows), dtype=values.dtype)
        for number, row_number, weight in entries:
            mix[number, row_number] += weight
        mixed = torch.einsum("mr,bru->bmu", mix.to(values), values)
        return mixed[:, torch.tensor([distinct[key] for key in keys], device=values.device)]


def _measure(values: Tensor, shots: int, generator: torch.Generator | None) -> Tensor:
    """Means of `shots` outcomes +1 or -1 with these expectation values."""
    chance = ((1 + values.double()) / 2).clamp(0, 1).cpu()
    count = torch.full_like(chance, float(shots))
    ones = torch.binomial(count, chance, generator=generator)
    return (2 * ones / shots - 1).to(values)


def _repeat(inputs: Tensor | None, times: int) -> Tensor | None:
    return inputs if inputs is None or times == 1 else inputs.repeat_interleave(times, 0)


def _front(
    state: Tensor, wires: Sequence[int], n: int
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """State [M, 2**n] as [M, 2**w, rest] with the wires in front, and the way back."""
    lead = list(range(1, len(wires) + 1))
    moved = state.reshape(len(state), *(2,) * n).movedim([1 + w for w in wires], lead)

    def back(found: Tensor) -> Tensor:
        whole = found.reshape(-1, *(2,) * n).movedim(lead, [1 + w for w in wires])
        return whole.reshape(-1, 2**n)

    return moved.reshape(len(state), 2 ** len(wires), 2 ** (n - len(wires))), back


def _apply(state: Tensor, table: Tensor, wires: Sequence[int], n: int) -> Tensor:
    """Every matrix [R, 2**w, 2**w] on every state [M, 2**n]: [M R, 2**n]."""
    front, back = _front(state, wires, n)
    return back(torch.einsum("rij,mjk->mrik", table, front))


def _apply_each(
    state: Tensor, matrices: Tensor, wires: Sequence[int], n: int, batch: int
) -> Tensor:
    """A matrix for each of M variants of states [batch (1 or M), 2**n]: [batch M, 2**n]."""
    front, back = _front(state, wires, n)
    front = front.reshape(batch, -1, *front.shape[1:])
    front = front.expand(batch, len(matrices), *front.shape[2:])
    return back(torch.einsum("mij,bmjk->bmik", matrices, front))


def _contract(tensors: list[tuple[str, Tensor]]) -> Tensor:
    """Sum over all axes but b and t, two tensors at a time, the smallest result first."""
    while len(tensors) > 1:
        best = (math.inf, 0, 0, "")
        for i, j in itertools.combinations(range(len(tensors)), 2):
            (one, first), (two, second) = tensors[i], tensors[j]
            sizes = dict(zip(one, first.shape, strict=True)) | dict(
                zip(two, second.shape, strict=True)
            )
            shared = set(one) & set(two) - {"b", "t"}
            left = "".join(a for a in dict.fromkeys(one + two) if a not in shared)
            left = "b" + left.replace("b", "").replace("t", "") + "t"
            # outer products last
            cost = math.prod(sizes[a] for a in left) * (1.0 if shared else 1e30)
            if cost < best[0]:
                best = (cost, i, j, left)
        _, i, j, left = best
        (one, first), (two, second) = tensors[i], tensors[j]
        joined = torch.einsum(f"{one},{two}->{left}", first, second)
        tensors = [t for k, t in enumerate(tensors) if k not in (i, j)] + [(left, joined)]
    (axes, value), *_ = tensors
    return value if axes == "bt" else torch.einsum(f"{axes}->bt", value)

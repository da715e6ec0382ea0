"""An ensemble that answers at any time: the first students, all of them, or as many as it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from saccade.compress.macs import count_macs

COMBINE = ("sum", "mean")


class EarlyExit(NamedTuple):
    """Classes [B], students asked for every image [B], and their multiply-accumulates [B]."""

    classes: Tensor
    students: Tensor
    macs: Tensor


class _Stage(nn.Module):
    """A student with its way in from the student before it."""

    def __init__(self, student: nn.Module, bridge: nn.Module | None) -> None:
        super().__init__()
        self.student = student
        self.bridge = bridge

    def forward(self, images: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits, and the hidden map for the next stage where stages are composed."""
        student: Any = self.student
        if not hasattr(student, "hidden"):
            return student(images), None
        # the gradient ends here: students are trained one after the other
        added = None
        if self.bridge is not None and before is not None:
            added = self.bridge(before.detach())
        hidden = student.hidden(images, added)
        return student.classify(hidden), hidden


class AnytimeEnsemble(nn.Module):
    r"""Students in order, F_k from the first k: their sum, or their mean.

    With `compose` student t also reads the last hidden map of student t - 1 through a linear map of
    its channels: :math:`x_t = \mathrm{Embed}(x) + P_t h_{t-1}`. P_t starts at 0: a composed student
    begins as it would apart. Students are evaluated in order, so that costs nothing twice.

    Args:
        students: classifiers [B, C, H, W] -> [B, K], smallest first; `append` adds more. With
            `compose` they have `hidden(images, added)`, `classify(hidden)` and `num_features`.
        combine: "sum" or "mean" of the logits.
        compose: whether a student reads its predecessor.

    Raises:
        ValueError: an unknown `combine`.
        TypeError: `compose` with a student that cannot be composed.
    """

    def __init__(
        self, students: Sequence[nn.Module] = (), combine: str = "sum", compose: bool = False
    ) -> None:
        super().__init__()
        if combine not in COMBINE:
            raise ValueError(f"combine must be one of {', '.join(COMBINE)}, got {combine!r}.")
        self.combine, self.compose = combine, compose
        self.stages = nn.ModuleList()
        for student in students:
            self.append(student)

    def __len__(self) -> int:
        return len(self.stages)

    def stage(self, student: nn.Module) -> nn.Module:
        """The student with its way in from the last one here; it is not appended."""
        bridge: nn.Module | None = None
        if self.compose:
            if not hasattr(student, "hidden"):
                raise TypeError(
                    f"compose=True needs students with hidden() and classify(); "
                    f"{type(student).__name__} has none."
                )
            if len(self):
                last: Any = self.stages[-1]
                width, new = last.student.num_features, student.num_features
                bridge = nn.Conv2d(width, new, 1, bias=False)  # type: ignore[arg-type]
                nn.init.zeros_(bridge.weight)
        return _Stage(student, bridge)

    def append(self, student: nn.Module) -> None:
        """Add a student, or what `stage` made of one, at the end."""
        self.stages.append(student if isinstance(student, _Stage) else self.stage(student))

    def run(
        self, images: Tensor, n_students: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """F_1, F_2 ... with the hidden map of the student that came last."""
        count = self._count(n_students)
        total, hidden = torch.zeros((), device=images.device), None
        for index in range(count):
            logits, hidden = self.stages[index](images, hidden if self.compose else None)
            total = total + logits
            yield (total / (index + 1) if self.combine == "mean" else total), hidden

    def forward(self, images: Tensor, n_students: int | None = None) -> Tensor:
        """Logits of the first n_students, default all: [B, K]."""
        self._count(n_students)
        return list(self.run(images, n_students))[-1][0]

    def predict(self, images: Tensor, n_students: int | None = None) -> Tensor:
        """Classes by the first n_students, default all: [B]."""
        return self.forward(images, n_students).argmax(1)

    @torch.no_grad()
    def predict_early(self, images: Tensor, threshold: float) -> EarlyExit:
        """Ask one student after the other; an image leaves once the largest probability of F_k
        reaches the threshold, or after the last student.

        Args:
            images: [B, C, H, W].
            threshold: 0 asks one student, above 1 all.

        Returns:
            EarlyExit: classes, students asked, and multiply-accumulates, for every image.
        """
        self._count(None)
        blank = images.new_zeros(1, *images.shape[1:])
        costs = torch.tensor(self.macs(blank), device=images.device).cumsum(0)
        classes = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        asked = torch.zeros_like(classes)
        waiting = torch.arange(len(images), device=images.device)
        total: Tensor | None = None
        hidden: Tensor | None = None
        for index, stage in enumerate(self.stages):
            if not len(waiting):
                break
            logits, hidden = stage(images[waiting], hidden if self.compose else None)
            total = logits if total is None else total + logits
            combined = total / (index + 1) if self.combine == "mean" else total
            classes[waiting], asked[waiting] = combined.argmax(1), index + 1
            stays = ~(combined.softmax(1).amax(1) >= threshold)
            waiting, total = waiting[stays], total[stays]
            hidden = None if hidden is None else hidden[stays]
        return EarlyExit(classes, asked, costs[asked - 1])

    def macs(self, images: Tensor) -> list[int]:
        """Multiply-accumulates of every student for one image of this size, bridges included."""
        counts, hidden = [], None
        for stage in self.stages:
            before = () if hidden is None or not self.compose else (hidden,)
            counts.append(count_macs(stage, images, *before))
            with torch.no_grad():
                hidden = stage(images, *before)[1]
        return counts

    def fractions(self, teacher: nn.Module, images: Tensor) -> list[float]:
        """Work of the first 1, 2 ... students over the teacher's, for images of this size."""
        whole, used, fractions = count_macs(teacher, images), 0, []
        for count in self.macs(images):
            used += count
            fractions.append(used / whole)
        return fractions

    def _count(self, n_students: int | None) -> int:
        count = len(self) if n_students is None else n_students
        if not 1 <= count <= len(self):
            raise ValueError(f"n_students must lie between 1 and {len(self)}, got {count}.")
        return count

    def extra_repr(self) -> str:
        """What print shows."""
        return f"combine={self.combine!r}, compose={self.compose}"

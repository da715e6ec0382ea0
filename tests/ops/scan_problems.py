"""Problems of the three scan operators: shapes, arguments, and how to draw their tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from saccade import ops

# Parameters and states: in float32 also where the signals are of a half type.
PARAMETERS = ("A", "D", "delta_bias", "dt_bias", "initial_state", "weight", "bias")
STATES = {"selective_scan": "return_last_state", "ssd_scan": "return_final_states"}


@dataclass(frozen=True)
class Problem:
    """One call: the operator, shapes of its tensors by name, other arguments, sequence lengths."""

    operator: str
    shapes: dict[str, tuple[int, ...]]
    kwargs: dict[str, Any] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()

    def draw(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Leaves of every floating input."""
        inputs = {}
        for name, shape in self.shapes.items():
            parameter = name in PARAMETERS or (name in "BC" and self.is_constant(name))
            # what stands before a convolution's input is of its type
            parameter &= (self.operator, name) != ("causal_conv1d", "initial_state")
            kind = torch.promote_types(dtype, torch.float32) if parameter else dtype
            values = torch.randn(shape, dtype=torch.float64)
            if name == "A":
                values = -values.exp()
            if name in ("delta", "dt", "delta_bias", "dt_bias") and not self.softplus:
                values = values.abs() * 0.3
            inputs[name] = values.to(device, kind).requires_grad_()
        return inputs

    def is_constant(self, name: str) -> bool:
        return self.operator == "selective_scan" and len(self.shapes[name]) == len(self.shapes["A"])

    @property
    def softplus(self) -> bool:
        return bool(self.kwargs.get("delta_softplus") or self.kwargs.get("dt_softplus"))

    def call(self, inputs: dict[str, Tensor], backend: str, **more: Any) -> tuple[Tensor, ...]:
        """Every result of the public function."""
        kwargs = {**self.kwargs, "backend": backend, **more}
        if self.lengths:
            first = next(iter(inputs.values()))
            numbers = torch.repeat_interleave(
                torch.arange(len(self.lengths)), torch.tensor(self.lengths)
            )
            kwargs["seq_idx"] = numbers.to(first.device).expand(first.shape[0], -1)
        if self.operator == "ssd_scan":
            kwargs.setdefault("chunk_size", 16)
        inputs = dict(inputs)
        if "initial_state" in inputs and self.operator != "selective_scan":
            inputs["initial_states"] = inputs.pop("initial_state")
        kwargs.setdefault(STATES.get(self.operator, "return_final_states"), True)
        result = getattr(ops, self.operator)(**inputs, **kwargs)
        return result if isinstance(result, tuple) else (result,)


def selective(
    batch: int, channels: int, length: int, state: int, b: str = "N", c: str = "N",
    extras: str = "", groups: int = 1, lengths: tuple[int, ...] = (), **kwargs: Any,
) -> Problem:  # fmt: skip
    """A sequence. b, c: "N" variable, "G" with groups, "D" constant; extras: D, z, bias, h0."""
    forms = {
        "N": (batch, state, length),
        "G": (batch, groups, state, length),
        "D": (channels, state),
    }
    signal = (batch, channels, length)
    shapes = {"u": signal, "delta": signal, "A": (channels, state), "B": forms[b], "C": forms[c]}
    more = {
        "D": (channels,),
        "z": signal,
        "delta_bias": (channels,),
        "initial_state": (batch, channels, state),
    }
    return Problem("selective_scan", shapes | _chosen(more, extras), kwargs, lengths)


def on_map(
    batch: int, channels: int, height: int, width: int, state: int, directions: tuple[str, ...],
    extras: str = "", groups: int = 0, **kwargs: Any,
) -> Problem:  # fmt: skip
    """A map. groups 0: the form without a group axis."""
    k, spot = len(directions), (height, width)
    coefficient = (batch, k, *([groups] if groups else []), state, *spot)
    shapes = {
        "u": (batch, channels, *spot),
        "delta": (batch, k, channels, *spot),
        "A": (k, channels, state),
        "B": coefficient,
        "C": coefficient,
    }
    more = {
        "D": (k, channels),
        "z": (batch, channels, *spot),
        "delta_bias": (k, channels),
        "initial_state": (batch, k, channels, state),
    }
    kwargs["directions"] = directions
    return Problem("selective_scan", shapes | _chosen(more, extras), kwargs)


def ssd(
    batch: int, length: int, heads: int, width: int, state: int, extras: str = "",
    groups: int = 1, lengths: tuple[int, ...] = (), **kwargs: Any,
) -> Problem:  # fmt: skip
    """SSD. extras: D (a head), P (D of a channel), z, bias, h0."""
    shapes = {
        "x": (batch, length, heads, width),
        "dt": (batch, length, heads),
        "A": (heads,),
        "B": (batch, length, groups, state),
        "C": (batch, length, groups, state),
    }
    more = {
        "D": (heads, width) if "P" in extras else (heads,),
        "z": (batch, length, heads, width),
        "dt_bias": (heads,),
        "initial_state": (batch, heads, width, state),
    }
    return Problem("ssd_scan", shapes | _chosen(more, extras), kwargs, lengths)


def conv(
    batch: int, channels: int, length: int, width: int, extras: str = "",
    lengths: tuple[int, ...] = (), **kwargs: Any,
) -> Problem:  # fmt: skip
    """A causal convolution. extras: bias, h0."""
    shapes = {"x": (batch, channels, length), "weight": (channels, width)}
    more = {"bias": (channels,), "initial_state": (batch, channels, width - 1)}
    return Problem("causal_conv1d", shapes | _chosen(more, extras), kwargs, lengths)


def _chosen(more: dict[str, tuple[int, ...]], extras: str) -> dict[str, tuple[int, ...]]:
    keys = {"delta_bias": "b", "dt_bias": "b", "bias": "b", "initial_state": "h"}
    wanted = extras.replace("P", "D")
    return {name: shape for name, shape in more.items() if keys.get(name, name) in wanted}


FOUR = ("lr", "rl", "tb", "bt")
PROBLEMS = {
    "s6-plain": selective(2, 5, 13, 4),
    "s6-all": selective(2, 20, 131, 16, extras="Dzbh", delta_softplus=True),
    "s6-one-step": selective(3, 17, 1, 1, extras="Dzbh", delta_softplus=True),
    "s6-one-channel": selective(1, 1, 67, 3, extras="zh"),
    "s6-long": selective(1, 3, 1000, 2, extras="b", delta_softplus=True),
    "s6-wide-state": selective(1, 6, 33, 64, extras="Dh"),
    "s6-widest-state": selective(1, 2, 9, 256, extras="z"),
    "s6-reverse": selective(2, 19, 197, 5, extras="Dzbh", delta_softplus=True, reverse=True),
    "s6-groups": selective(2, 18, 37, 7, b="G", c="G", groups=3, extras="Dz"),
    "s6-group-a-channel": selective(1, 5, 18, 3, b="G", c="G", groups=5),
    "s6-constant-b": selective(2, 10, 21, 6, b="D", c="N", extras="Dh"),
    "s6-constant-c": selective(2, 10, 35, 6, b="G", c="D", groups=2, extras="z"),
    "s6-constant": selective(2, 18, 64, 8, b="D", c="D", extras="Dzbh", delta_softplus=True),
    "s6-sequences": selective(2, 9, 100, 5, extras="zh", lengths=(1, 31, 40, 2, 26)),
    "s6-sequences-reverse": selective(1, 9, 100, 5, extras="h", lengths=(33, 1, 66), reverse=True),
    "s6-four-ways": on_map(2, 19, 5, 7, 4, FOUR, extras="Dzbh", delta_softplus=True),
    "s6-one-column": on_map(1, 3, 7, 1, 3, FOUR, extras="D"),
    "s6-down": on_map(2, 6, 11, 13, 3, ("tb",), extras="zh", groups=2),
    "s6-twice-the-same": on_map(1, 4, 3, 4, 2, ("bt", "lr", "bt"), extras="Db"),
    "ssd-plain": ssd(2, 13, 3, 5, 4),
    "ssd-all": ssd(2, 70, 4, 8, 6, extras="Dzbh", groups=2, dt_softplus=True),
    "ssd-by-channel": ssd(1, 33, 2, 67, 9, extras="Pzbh", dt_softplus=True, dt_limit=(0.2, 0.9)),
    "ssd-one-step": ssd(3, 1, 2, 1, 1, extras="Dzbh"),
    "ssd-real": ssd(1, 131, 3, 64, 64, extras="D", dt_softplus=True),
    "ssd-sequences": ssd(2, 100, 2, 16, 5, extras="zh", lengths=(1, 31, 40, 2, 26)),
    "conv-plain": conv(2, 5, 13, 4),
    "conv-all": conv(2, 20, 700, 4, extras="bh", activation="silu"),
    "conv-three": conv(1, 18, 131, 3, extras="b"),
    "conv-one-tap": conv(2, 3, 9, 1, extras="b", activation="swish"),
    "conv-widest": conv(1, 17, 67, 16, extras="bh", activation="silu"),
    "conv-short": conv(2, 3, 2, 5, extras="h"),
    "conv-one-step": conv(1, 2, 1, 4),
    "conv-sequences": conv(2, 18, 61, 4, extras="b", lengths=(1, 2, 30, 3, 25), activation="silu"),
}

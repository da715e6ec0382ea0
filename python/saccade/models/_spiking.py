"""What spiking networks share: neurons behind a batch norm, LIF-convolution-norm, steps, counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from saccade.models._classifier import Classifier
from saccade.ops import affine_lif, lif

# Energy of one operation in 45 nm, in picojoule: multiply and add, and add alone.
MULTIPLY_PJ, ADD_PJ = 4.6, 0.9


def per_frame(module: nn.Module, x: Tensor) -> Tensor:
    """Apply a module of [B, ...] to every step of [T, B, ...] at once."""
    y: Tensor = module(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    return y


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons over all steps, from rest in every call.

    The surrogate is a sigmoid of width 4 and the reset is detached, as in the papers that share
    this file.

    Args:
        tau: time constant in steps.
        reset: "hard", to 0, or "soft", by the threshold.
        v_threshold: potential that fires.
    """

    def __init__(self, tau: float = 2.0, reset: str = "hard", v_threshold: float = 1.0) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "tau": tau,
            "v_threshold": v_threshold,
            "v_reset": 0.0 if reset == "hard" else None,
            "detach_reset": True,
            "surrogate": "sigmoid",
            "alpha": 4.0,
        }

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Currents [T, B, C, ...] -> spikes of the same shape; `norm` is a batch norm before them.

        A norm that knows its statistics is a scale and a shift, which the neurons' own pass makes.
        """
        if norm is None:
            return lif(x, **self.options)[0]
        if norm.training or getattr(norm, "running_var", None) is None:
            return lif(per_frame(norm, x), **self.options)[0]
        weight = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # type: ignore[operator]
        bias = norm.bias - norm.running_mean * weight  # type: ignore[operator]
        return affine_lif(x, weight, bias, **self.options)[0]

    def extra_repr(self) -> str:
        """The options that differ between layers."""
        return f"tau={self.options['tau']}, v_threshold={self.options['v_threshold']}"


class ConvNorm(nn.Module):
    """A convolution without bias and its batch norm, on every step of [T, B, C, H, W]."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> [T, B, O, ceil(H / stride), ceil(W / stride)]."""
        return per_frame(self.norm, per_frame(self.conv, x))


class Unit(nn.Module):
    """Neurons, a convolution of their spikes, a batch norm.

    `current` stops before the norm, and the next unit takes it as `before`: so the norm joins the
    next neurons' pass.
    """

    def __init__(self, lif: LIF, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.lif = lif
        self.conv = conv
        self.norm = norm

    def current(self, x: Tensor, before: nn.Module | None = None) -> Tensor:
        """[T, B, C, ...] -> the convolution of the spikes, without the norm."""
        return per_frame(self.conv, self.lif(x, before))

    def forward(self, x: Tensor, before: nn.Module | None = None) -> Tensor:
        """[T, B, C, ...] -> the normed convolution of the spikes."""
        return per_frame(self.norm, self.current(x, before))


class SpikeProduct(nn.Module):
    """values @ spikes: a module, so that its additions can be counted."""

    def forward(self, values: Tensor, spikes: Tensor) -> Tensor:
        """[..., M, K] and [..., K, N] -> [..., M, N]."""
        return values @ spikes


class SpikingClassifier(Classifier):
    """A classifier whose maps have a leading axis of steps; its head reads rates of spikes.

    Args:
        neurons: makes a layer of neurons.
        steps: steps over which a still image is shown.
        stem: image to membrane; what it gives for a still image is computed once.
        stages, widths, num_classes, drop_rate, reductions, init: as in `Classifier`.

    Shape:
        A still image [B, in_chans, H, W], or frames [B, T, in_chans, H, W] with a T of their own,
        -> [B, num_classes], or [B, num_features] without classes.
    """

    def __init__(
        self,
        neurons: Callable[[], LIF],
        steps: int,
        stem: nn.Module,
        stages: Sequence[Sequence[nn.Module]],
        widths: Sequence[int],
        num_classes: int,
        drop_rate: float,
        reductions: Sequence[int],
        init: Callable[[nn.Module], None],
    ) -> None:
        super().__init__(
            stem, stages, widths, nn.Identity(), num_classes, drop_rate, reductions, init
        )
        self.steps = steps
        self.head_lif: nn.Module = neurons()

    def check_images(self, x: Tensor) -> None:
        """Refuse what is neither images nor at least one frame each.

        Raises:
            ValueError: another number of axes or channels, or no frame.
        """
        if x.dim() == 5 and not x.shape[1]:
            raise ValueError(f"there must be a frame at least, got {tuple(x.shape)}.")
        super().check_images(x.flatten(0, 1) if x.dim() == 5 else x)

    def _begin(self, x: Tensor) -> Tensor:
        """Image or frames -> the stem's membrane [T, B, C, H, W]."""
        if x.dim() == 5:
            y: Tensor = self.stem(x.transpose(0, 1))
            return y
        still: Tensor = self.stem(x.unsqueeze(0))
        return still.expand(self.steps, *still.shape[1:])

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] or [B, T, in_chans, H, W] -> the last membrane [T, B, C, h, w]."""
        x = self._begin(x)
        for block in self.features:
            x = self._run(block, x)
        return x

    def forward_intermediates(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """The stages' membranes, NCHW: means over the steps; later stages are not run."""
        ends = [self.stage_ends[index] for index in indices]
        maps: dict[int, Tensor] = {}
        x = self._begin(x)
        for position, block in enumerate(self.features[: max(ends) + 1]):
            x = self._run(block, x)
            if position in ends:
                maps[position] = x.mean(0)
        return [maps[end] for end in ends]

    def _rates(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.head_lif(x.mean((3, 4)))
        return spikes.mean(0)

    def pool(self, x: Tensor) -> Tensor:
        """Membrane [T, B, C, h, w] -> spikes a step of the mean over the map, [B, C]."""
        return self._rates(x)


@dataclass(frozen=True)
class LayerActivity:
    """What one layer did for one image.

    Args:
        name: of the module.
        operations: multiply-adds of the dense layer over all steps.
        rate: share of the inputs that spike; 1 for inputs that are no spikes.
        spiking: whether the inputs were spikes, so that a multiply-add is an addition.
    """

    name: str
    operations: float
    rate: float
    spiking: bool

    @property
    def synaptic_operations(self) -> float:
        """Operations that a spike or a number made: rate times operations."""
        return self.rate * self.operations

    @property
    def energy(self) -> float:
        """In picojoule."""
        return self.synaptic_operations * (ADD_PJ if self.spiking else MULTIPLY_PJ)


@dataclass(frozen=True)
class Activity:
    """Spike rates, synaptic operations and energy of a network, an image or a line of frames.

    Args:
        layers: every convolution, linear layer and product of spikes, in the order of their calls.
        firing: spikes a neuron and step of every layer of neurons, by name.
        steps: T.
        frames: whether every step had a frame of its own, so that the first layer ran T times.
    """

    layers: tuple[LayerActivity, ...]
    firing: dict[str, float]
    steps: int
    frames: bool = False

    @property
    def synaptic_operations(self) -> float:
        """Additions that spikes caused, over all layers and steps."""
        return sum(layer.synaptic_operations for layer in self.layers if layer.spiking)

    @property
    def energy_mj(self) -> float:
        """4.6 pJ a multiply-add and 0.9 pJ a synaptic operation, in millijoule; norms are free."""
        return 1e-9 * sum(layer.energy for layer in self.layers)

    @property
    def ann_energy_mj(self) -> float:
        """4.6 pJ a multiply-add of the same network without spikes, run on one image, in mJ."""
        first, *rest = self.layers
        once = first.operations / (self.steps if self.frames else 1)
        operations = once + sum(layer.operations for layer in rest) / self.steps
        return 1e-9 * MULTIPLY_PJ * operations

    @property
    def mean_rate(self) -> float:
        """Mean of the layers' firing rates."""
        return sum(self.firing.values()) / max(1, len(self.firing))


def _dense(module: nn.Module, out: Tensor, inputs: tuple[Tensor, ...]) -> int:
    """Multiply-adds of one call."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return out.numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return out.numel() * module.in_features
    return out.numel() * inputs[0].shape[-1]


@torch.no_grad()
def activity(model: SpikingClassifier, images: Tensor) -> Activity:
    r"""Run images through a model in evaluation mode and count its spikes.

    .. math:: E = 4.6\,pJ \cdot N_0 + 0.9\,pJ \sum_l r_l T N_l

    N are multiply-adds a step, r the share of inputs that spike. A layer that reads no spikes (the
    shortcuts of Max-ResNet) costs 4.6 pJ a multiply-add like the first. Batch norms, pooling and
    the neurons' own operations are not counted; the two products of attention are.

    Args:
        model: a spiking classifier; its mode is as before afterwards.
        images: what `model` takes; the more images, the better the means.

    Returns:
        Activity: means over the images.

    Raises:
        ValueError: there is no image.
        TypeError: `model` is no spiking classifier.

    Source:
        Fang et al., arXiv 2505.18608, appendix; energies: Horowitz, ISSCC 2014.
    """
    if not isinstance(model, SpikingClassifier):
        raise TypeError(f"model must be a spiking classifier, got {type(model).__name__}.")
    if not len(images):
        raise ValueError(f"images must not be empty, got {tuple(images.shape)}.")
    layers: list[LayerActivity] = []
    firing: dict[str, float] = {}
    count = len(images)
    frames = images.dim() == 5
    steps = images.shape[1] if frames else model.steps

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        operations = _dense(module, out, inputs) / count
        read = inputs[-1]
        # the head reads means over the steps of spikes: linear, so these are rates all the same
        head = module is model.head
        spiking = bool(layers) and (head or bool(((read == 0) | (read == 1)).all()))
        layers.append(
            LayerActivity(
                name,
                operations * (steps if head else 1),
                float(read.double().mean()) if spiking else 1.0,
                spiking,
            )
        )

    def rate(name: str, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        firing[name] = float(out.double().mean())

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear, SpikeProduct)):
            handles.append(module.register_forward_hook(partial(note, name)))
        elif isinstance(module, LIF):
            handles.append(module.register_forward_hook(partial(rate, name)))
    was_training = model.training
    model.eval()
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    return Activity(tuple(layers), firing, steps, frames)

"""Work of a model: multiply-accumulates of one image, counted while it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from saccade.nn import Mamba, SelectiveScan


def count_macs(model: nn.Module, images: Tensor, *added: Tensor) -> int:
    """Multiply-accumulates of one image in a forward pass; twice this is the usual count of FLOPs.

    Counted are linear layers, convolutions and selective scans, a scan at three for every channel,
    state and position (state times decay, input times B, state times C). Norms, activations, biases
    and additions are not.

    Args:
        model: called once, in evaluation mode and without gradients.
        images: [B, C, H, W].
        added: further arguments of the model.

    Returns:
        The count over the B images, divided by B.

    Raises:
        ValueError: there is no image.

    >>> count_macs(nn.Conv2d(1, 8, 2, 2), torch.zeros(3, 1, 4, 4))
    128
    """
    if not len(images):
        raise ValueError(f"images must hold at least one image, got shape {tuple(images.shape)}.")
    total = 0

    def meter(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        total += _work(module, inputs[0], output)

    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d, SelectiveScan))]
    handles = [layer.register_forward_hook(meter) for layer in layers]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(images, *added)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return total // len(images)


def _work(layer: nn.Module, given: Tensor, output: Any) -> int:
    if isinstance(layer, nn.Linear):
        return int(output.numel()) * layer.in_features
    if isinstance(layer, nn.Conv2d):
        return int(output.numel()) * layer.weight[0].numel()
    if not isinstance(layer, SelectiveScan):
        raise TypeError(f"no count is known for {type(layer).__name__}.")
    # the projections of a scan that are modules of their own are counted as linear layers
    width = layer.channels * (layer.dt_rank + 3 * layer.state)
    if isinstance(layer, Mamba):
        width += layer.channels * layer.kernel_size
    return given.shape[0] * given.shape[1] * width

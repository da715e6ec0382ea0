"""Fuses two networks of one architecture: neurons are aligned by optimal transport, then averaged.

Singh and Jaggi, "Model Fusion via Optimal Transport" (arXiv 1910.05653), algorithm 1 with ground
costs from weights.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from saccade import ops

METRICS = ("euclidean", "cosine")
NORMALISATIONS = ("max", "mean", "median", "log1p")
SOLVERS = ("exact", "sinkhorn")
MARGINALS = ("uniform", "importance")

_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d)


def _among(name: str, given: str | None, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {given!r}.")


def _layers(network: nn.Module, name: str) -> list[nn.Module]:
    """Layers with weights, in the order in which they were made."""
    layers: list[nn.Module] = []
    for path, module in network.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, *_BATCH_NORM)):
            if isinstance(module, nn.Conv2d) and module.groups != 1:
                raise NotImplementedError(
                    f"{name}.{path} must have groups = 1, got {module.groups}."
                )
            layers.append(module)
        elif any(True for _ in module.parameters(recurse=False)):
            raise NotImplementedError(
                f"{name} must be a stack of Linear, Conv2d and BatchNorm layers, "
                f"got {type(module).__name__} at {path!r}."
            )
    return layers


def _incoming(weight: Tensor, transport: Tensor) -> Tensor:
    """The weights as seen from the target's inputs; after a flattening a channel has many."""
    channels = transport.shape[0]
    if weight.shape[1] % channels:
        raise ValueError(
            f"a layer of {weight.shape[1]} inputs cannot follow one of {channels} outputs."
        )
    grouped = weight.reshape(weight.shape[0], channels, -1)
    turned = torch.einsum("oip,ij->ojp", grouped, transport)
    return turned.reshape(weight.shape[0], -1, *weight.shape[2:])


def _ground_cost(rows: Tensor, columns: Tensor, metric: str, normalise: str | None) -> Tensor:
    if metric == "cosine":
        unit = [nn.functional.normalize(x, dim=1) for x in (rows, columns)]
        cost = 1 - unit[0] @ unit[1].mT
    else:
        # differences, because products lose what equal rows have in common
        cost = torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist")
    if normalise == "log1p":
        return cost.clamp(min=0).log1p()
    if normalise is not None:
        scale = {"max": cost.max(), "mean": cost.mean(), "median": cost.median()}[normalise]
        cost = cost / scale.clamp(min=torch.finfo(cost.dtype).tiny)
    return cost


def _share(rows: Tensor, marginals: str) -> Tensor:
    if marginals == "uniform":
        return rows.new_full((rows.shape[0],), 1.0 / rows.shape[0])
    importance = rows.abs().sum(1)
    return importance / importance.sum()


def _transport(
    rows: Tensor, columns: Tensor, metric: str, normalise: str | None, solver: str,
    marginals: str, eps: float, max_iter: int,
) -> Tensor:  # fmt: skip
    cost = _ground_cost(rows, columns, metric, normalise)
    a, b = _share(rows, marginals), _share(columns, marginals)
    if solver == "exact":
        plan = ops.emd(cost, a, b).plan
    else:
        plan = ops.sinkhorn(cost, a, b, eps=eps, max_iter=max_iter, grad="none").plan
    moved = cast("Tensor", plan)
    total = moved.sum(0, keepdim=True)
    return moved / torch.where(total == 0, 1.0, total)


@torch.no_grad()
def align(
    source: nn.Module,
    target: nn.Module,
    *,
    metric: str = "euclidean",
    normalise: str | None = None,
    solver: str = "exact",
    marginals: str = "uniform",
    eps: float = 0.05,
    max_iter: int = 100,
) -> nn.Module:
    r"""Bring the neurons of a network into the order of another one's, layer by layer.

    .. math:: \hat W_l = T_l^\top W_l T_{l-1}, \quad
              T_l = P_l \, \mathrm{diag}(P_l^\top 1)^{-1}

    with the transport plan P of the distances between rows of weights. Inputs and outputs of the
    network stay where they are.

    Args:
        source: a stack of Linear, Conv2d (groups 1) and BatchNorm layers, in the order in which
            they run; layers without parameters may stand between them.
        target: a network of the same layers; widths may differ.
        metric: "euclidean" (default) or "cosine", between rows of weights with their bias.
        normalise: divide the costs by their "max", "mean" or "median", or take "log1p" of them;
            None (default) leaves them.
        solver: "exact" (:func:`saccade.ops.emd`) or "sinkhorn".
        marginals: "uniform" (default), or "importance": the L1 norm of each row.
        eps: entropy of "sinkhorn", in units of the cost.
        max_iter: sweeps of "sinkhorn".

    Returns:
        A copy of target with the aligned weights of source.

    Raises:
        ValueError: an option is unknown, or the layers do not fit together.
        NotImplementedError: a layer of another kind.

    Notes:
        Runs on the CPU with "exact", as emd does. BatchNorm follows the layer before it: its
        scale, shift and statistics are carried along.

    Source:
        Singh and Jaggi, arXiv 1910.05653, algorithm 1.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> torch.equal(align(net, net)[0].weight, net[0].weight)
    True
    """
    _among("metric", metric, METRICS)
    _among("solver", solver, SOLVERS)
    _among("marginals", marginals, MARGINALS)
    if normalise is not None:
        _among("normalise", normalise, NORMALISATIONS)
    result = copy.deepcopy(target)
    ours, theirs = _layers(source, "source"), _layers(result, "target")
    kinds = [[type(layer).__name__ for layer in layers] for layers in (ours, theirs)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"source and target must have the same layers, got {kinds[0]} and {kinds[1]}."
        )
    weighted = [k for k, layer in enumerate(ours) if not isinstance(layer, _BATCH_NORM)]
    transport: Tensor | None = None
    for k, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        if isinstance(own, _BATCH_NORM):
            for name in ("weight", "bias", "running_mean", "running_var"):
                carried, place = getattr(own, name), getattr(other, name)
                if carried is not None and place is not None:
                    place.copy_(carried if transport is None else carried @ transport)
            continue
        own, other = cast("nn.Linear", own), cast("nn.Linear", other)  # or Conv2d: the same fields
        weight = own.weight if transport is None else _incoming(own.weight, transport)
        if weight.shape[1:] != other.weight.shape[1:]:
            raise ValueError(
                f"layer {k} must have weights of one shape after alignment, got "
                f"{tuple(weight.shape)} for source and {tuple(other.weight.shape)} for target."
            )
        bias = own.bias
        if k == weighted[-1]:
            if weight.shape != other.weight.shape:
                raise ValueError(
                    f"the networks must have as many outputs, got {weight.shape[0]} and "
                    f"{other.weight.shape[0]}."
                )
            transport = torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
        else:
            rows, columns = weight.flatten(1), other.weight.flatten(1)
            if own.bias is not None and other.bias is not None:
                rows = torch.cat([rows, own.bias.unsqueeze(1)], 1)
                columns = torch.cat([columns, other.bias.unsqueeze(1)], 1)
            transport = _transport(
                rows, columns, metric, normalise, solver, marginals, eps, max_iter
            )
        other.weight.copy_(torch.einsum("oj,o...->j...", transport, weight))
        if bias is not None and other.bias is not None:
            other.bias.copy_(bias @ transport)
    return result


@torch.no_grad()
def fuse(source: nn.Module, target: nn.Module, share: float = 0.5, **options: str) -> nn.Module:
    r"""Average two networks after alignment: :math:`(1 - s) \hat W + s W` in every layer.

    Args:
        source: as in :func:`align`.
        target: gives the order of the neurons.
        share: s, of target, in [0, 1]. Default 0.5.
        options: of :func:`align`.

    Returns:
        A network like target.

    Raises:
        ValueError: share is not in [0, 1]; whatever align raises.

    Source:
        Singh and Jaggi, arXiv 1910.05653, algorithm 1, last step.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> bool((fuse(net, net)[2].weight == net[2].weight).all())
    True
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must be in [0, 1], got {share}.")
    fused = align(source, target, **options)  # type: ignore[arg-type]
    theirs = target.state_dict()
    for name, value in fused.state_dict().items():
        if value.is_floating_point():
            value.mul_(1 - share).add_(theirs[name], alpha=share)
    return fused

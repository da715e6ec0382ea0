"""Models against timm's, or against themselves with plain torch operations for the operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import saccade
from saccade._extras import require
from saccade.bench._suite import UnsupportedError
from saccade.models import create_model, default_cfg, list_models, mixformer
from saccade.models._layers import DropPath
from saccade.models._registry import _models
from saccade.ops._select import reference_only

OURS, PLAIN, EXPLICIT, TIMM = "saccade", "plain", "explicit", "timm"
PEERS = (PLAIN, EXPLICIT, TIMM)


@dataclass(frozen=True)
class ModelCase:
    """One model at one size.

    Args:
        model: name in the registry.
        batch: images.
        operators: words that the model stands on.
        peer: "plain": the same model on the reference of every operator, which is what one writes
            in torch without them; "explicit": the same model with the matrix of all scores of its
            attention, as the authors of CvT write it and as the formula of cosFormer has it;
            "timm": timm's model of the name `timm`, with the same weights;
            "": there is no other formulation, the model is torch's own operations.
        timm: name in timm's registry.
        tolerance: how far outputs and gradients may be from the peer's, relative to the largest.
        note: for the table.
    """

    model: str
    batch: int = 2
    operators: tuple[str, ...] = ()
    peer: str = ""
    timm: str = ""
    tolerance: float = 1e-3
    note: str = ""

    @property
    def family(self) -> str:
        """The file of the model."""
        return _models[self.model].module

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[B, C, H, W]"""
        return (self.batch, *default_cfg(self.model).input_size)


# A potential that rounding puts on the other side of the threshold is a whole spike, so models of
# spiking neurons are held to less.
_SPIKING = 0.05

CASES = (
    ModelCase("cnn_svm", 32),
    ModelCase("cvt_13", peer=EXPLICIT),
    ModelCase("davit_tiny", peer=TIMM, timm="davit_tiny"),
    ModelCase("inception_v4", 1, peer=TIMM, timm="inception_v4"),
    ModelCase(
        "inception_resnet_v2_slim",
        1,
        peer=TIMM,
        timm="inception_resnet_v2",
        note="wraps timm's",
    ),
    ModelCase("karat_tiny", operators=("kan",), peer=PLAIN),
    ModelCase("lightweight_cnn", 128),
    ModelCase("mamba_pkd_s7", 16, operators=("scan",), peer=PLAIN),
    ModelCase("mamba_pkd_teacher", 4, operators=("scan",), peer=PLAIN),
    ModelCase("mixformer_found", peer=EXPLICIT),
    ModelCase("max_former_cifar", 2, operators=("spiking",), peer=PLAIN, tolerance=_SPIKING),
    ModelCase("max_resnet18", 2, operators=("spiking",), peer=PLAIN, tolerance=_SPIKING),
    ModelCase(
        "medvitv2_tiny", operators=("kan", "neighborhood_attention"), peer=PLAIN, tolerance=5e-3
    ),
)


def cases(names: tuple[str, ...] | None = None) -> tuple[ModelCase, ...]:
    """The cases of these models; default those of CASES, and the smallest model of every family
    that has none there.

    Raises:
        ValueError: a name is not in the registry.
    """
    known = {case.model: case for case in CASES}
    if names:
        for name in names:
            default_cfg(name)
        return tuple(known.get(name, ModelCase(name)) for name in names)
    covered = {case.family for case in CASES}
    rest: dict[str, list[str]] = {}
    for name in list_models(exclude_filters="*_test_model"):
        if _models[name].module not in covered:
            rest.setdefault(_models[name].module, []).append(name)
    return (*CASES, *(ModelCase(min(found, key=_parameters)) for found in rest.values()))


def _parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name).parameters())


@dataclass(frozen=True)
class Contestant:
    """A model, the state of the operators in which it runs, and its keys as ours."""

    name: str
    version: str
    model: nn.Module
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    rename: Callable[[dict[str, Any]], dict[str, Any]] = dict

    def forward(self, images: Tensor) -> Tensor:
        """Logits in evaluation mode, without a graph."""
        self.model.eval()
        with torch.no_grad(), self.context():
            logits: Tensor = self.model(images)
        return logits

    def step(self, images: Tensor, targets: Tensor) -> list[Tensor]:
        """Gradients of every parameter in training mode: a training step without the optimiser."""
        self.model.train()
        with self.context():
            loss = nn.functional.cross_entropy(self.model(images), targets)
            return list(torch.autograd.grad(loss, list(self.model.parameters())))

    def gradients(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """What `step` gives, by our names of the parameters."""
        names = [name for name, _ in self.model.named_parameters()]
        return self.rename(dict(zip(names, self.step(images, targets), strict=True)))


def _certain(model: nn.Module) -> nn.Module:
    """Without dropout and stochastic depth, whose draws would differ."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.rate = 0.0
        elif type(module).__name__ == "DropPath":  # timm's
            module.drop_prob = 0.0
    return model


@torch.no_grad()
def _calibrate(model: nn.Module, images: Tensor) -> None:
    """Give batch norms the statistics of a batch: with those of a new model a deep network fades,
    and neurons never fire, so that outputs would say nothing.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        model.train()(images)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def build(case: ModelCase, device: torch.device) -> list[Contestant]:
    """Ours, and the peer with the same weights; no dropout and no stochastic depth.

    Raises:
        UnsupportedError: timm, the peer, is not installed.
        ImportError: the model needs a package that is not installed.
    """
    torch.manual_seed(0)
    ours: Any = _certain(create_model(case.model)).to(device)
    if case.peer != TIMM:
        _calibrate(ours, draw(case, device)[0])
    found = [Contestant(OURS, f"saccade {saccade.__version__}", ours)]
    if case.peer == PLAIN:
        version = f"torch {torch.__version__.partition('+')[0]}"
        # one set of weights for both: a contestant changes none
        found.append(Contestant(PLAIN, version, ours, reference_only))
    elif case.peer == EXPLICIT:
        version = f"torch {torch.__version__.partition('+')[0]}"
        found.append(Contestant(EXPLICIT, version, ours, explicit_attention))
    elif case.peer == TIMM:
        try:
            timm = require("timm", extra="models", purpose=f"the peer of {case.model}")
        except ImportError as error:
            raise UnsupportedError(str(error)) from error
        theirs = _certain(timm.create_model(case.timm)).to(device)
        rename: Any = ours.checkpoint_filter
        _calibrate(theirs, draw(case, device)[0])
        ours.load_state_dict(rename(theirs.state_dict()))
        version = f"timm {metadata.version('timm')}"
        found.append(Contestant(TIMM, version, theirs, rename=rename))
    return found


@contextmanager
def explicit_attention() -> Iterator[None]:
    """Have attention make the matrix of all scores inside the block."""
    with (
        patch.object(nn.functional, "scaled_dot_product_attention", _softmax_attention),
        patch.object(mixformer, "cosformer_attention", _cosine_attention),
    ):
        yield


def _softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    return (scores if attn_mask is None else scores + attn_mask).softmax(-1) @ v


def _cosine_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, eps: float) -> Tensor:
    places = torch.arange(q.shape[-2], device=q.device)
    angles = math.pi / 2 / len(places) * (places[:, None] - places)
    scores = q.relu() @ k.relu().mT * angles.cos()
    scores = scores.tril() if causal else scores
    return scores @ v / scores.sum(-1, keepdim=True).clamp(min=eps)


def draw(case: ModelCase, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images of N(0, 1) and classes."""
    rng = torch.Generator().manual_seed(0)
    classes = default_cfg(case.model).num_classes
    images = torch.randn(case.shape, generator=rng)
    targets = torch.randint(classes, (case.batch,), generator=rng)
    return images.to(device), targets.to(device)

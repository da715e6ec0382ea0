"""Mamba classifiers for progressive distillation: one teacher, seven students, and small ones.

"Mamba base PKD for efficient knowledge compression", Medina, Hadachi, Honeine, Bensrhair, 2025.
https://arxiv.org/abs/2503.01727

Faithful (abstract): a teacher and students of growing size, all of Mamba blocks; the smallest costs
about 1 % of the teacher, all seven together about 63 % (here 0.9 and 61 % of the blocks' work). The
block is the published Mamba's (arXiv 2312.00752), `saccade.nn.Mamba`.

Deviations: the paper's text and code were not at hand, so everything else is chosen here: patches
of 4 x 4, no position embedding (the order of the scan tells the position), pre-norm residual
blocks, mean over the tokens, and all widths and depths. Results are in the spirit of the paper. A
bidirectional block runs one and the same layer in both directions and adds the results. All layers
keep torch's and Mamba's own start. `mamba_pkd_micro_*` are not in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from saccade.models._classifier import Classifier, DefaultCfg
from saccade.models._layers import DropPath
from saccade.models._registry import configure, register_model
from saccade.nn import Mamba

SCANS = ("raster", "snake")


@dataclass(frozen=True)
class MambaPKDConfig:
    """What distinguishes one from another; every field is an option of `create_model`.

    Args:
        dim: channels of the tokens.
        depth: Mamba blocks.
        patch_size: side of a token's patch in pixels; the rest at the right and the bottom is
            dropped.
        scan: order of the tokens, "raster" (every row from the left) or "snake" (every other row
            from the right).
        bidirectional: add the result of the same layer on the reversed sequence, at twice its cost.
        state: numbers of the state of a channel.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        drop_rate: dropout before the classifier.
        num_classes: size of the classifier; 0 gives pooled features.
        in_chans: channels of the image.
    """

    dim: int = 128
    depth: int = 8
    patch_size: int = 4
    scan: str = "raster"
    bidirectional: bool = False
    state: int = 16
    drop_path_rate: float = 0.0
    drop_rate: float = 0.0
    num_classes: int = 10
    in_chans: int = 1

    def __post_init__(self) -> None:
        for name in ("dim", "depth", "patch_size", "state"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.scan not in SCANS:
            raise ValueError(f"scan must be one of {', '.join(SCANS)}, got {self.scan!r}.")


class PatchEmbed(nn.Module):
    """Patches that do not overlap, each mapped to a token."""

    def __init__(self, in_chans: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.conv = nn.Conv2d(in_chans, dim, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> [B, dim, H // patch_size, W // patch_size]."""
        if min(x.shape[2:]) < self.patch_size:
            raise ValueError(
                f"the image must have at least {self.patch_size} x {self.patch_size} pixels, one "
                f"patch, got {x.shape[2]} x {x.shape[3]}."
            )
        y: Tensor = self.conv(x)
        return y


def snake(x: Tensor) -> Tensor:
    """Reverse every other row of a map [..., H, W]; the function is its own inverse.

    >>> snake(torch.arange(6).view(3, 2)).flatten().tolist()
    [0, 1, 3, 2, 4, 5]
    """
    odd = torch.arange(x.shape[-2], device=x.device) % 2 == 1
    return torch.where(odd[:, None], x.flip(-1), x)


class Block(nn.Module):
    """x + Mamba(LN(x)) along the tokens of a map."""

    def __init__(self, cfg: MambaPKDConfig, drop: float) -> None:
        super().__init__()
        self.scan, self.bidirectional = cfg.scan, cfg.bidirectional
        self.norm = nn.LayerNorm(cfg.dim)
        self.mixer = Mamba(cfg.dim, state=cfg.state)
        self.drop_path = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        ordered = snake(x) if self.scan == "snake" else x
        tokens = self.norm(ordered.flatten(2).mT)
        mixed = self.mixer(tokens)
        if self.bidirectional:
            mixed = mixed + self.mixer(tokens.flip(1)).flip(1)
        y: Tensor = mixed.mT.unflatten(2, x.shape[2:])
        out: Tensor = x + self.drop_path(snake(y) if self.scan == "snake" else y)
        return out


def _keep(module: nn.Module) -> None:
    """Layers start as torch and Mamba make them: Mamba's first steps lie in a bias."""


class MambaPKD(Classifier):
    """Teacher or student, as its config says; `create_model("mamba_pkd_teacher")` makes one.

    Shape:
        [B, in_chans, H, W] -> [B, num_classes], or [B, num_features] without classes.
    """

    def __init__(self, cfg: MambaPKDConfig) -> None:
        last = max(1, cfg.depth - 1)
        super().__init__(
            PatchEmbed(cfg.in_chans, cfg.dim, cfg.patch_size),
            [[Block(cfg, cfg.drop_path_rate * index / last) for index in range(cfg.depth)]],
            [cfg.dim],
            nn.LayerNorm(cfg.dim),
            cfg.num_classes,
            cfg.drop_rate,
            [cfg.patch_size],
            _keep,
        )
        self.cfg = cfg

    def hidden(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """The map after the last block and before its norm, [B, dim, H', W'].

        Args:
            x: images [B, in_chans, H, W].
            added: a map of the result's shape that is added to the embedded patches; a student
                composed with its predecessor reads it so.
        """
        x = self.stem(x)
        if added is not None:
            if added.shape != x.shape:
                raise ValueError(
                    f"added must have the shape {tuple(x.shape)} of the embedded patches, got "
                    f"{tuple(added.shape)}."
                )
            x = x + added
        for block in self.features:
            x = self._run(block, x)
        return x

    def classify(self, hidden: Tensor) -> Tensor:
        """What `hidden` gives -> logits [B, num_classes]."""
        return self.forward_head(self._normed(hidden))

    def _normed(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> the last map after its norm, [B, dim, H', W']."""
        return self._normed(self.hidden(x))

    def no_weight_decay(self) -> set[str]:
        """The scans' `A_log` and `D`: decay makes them unstable."""
        return {
            name for name, _ in self.named_parameters() if name.rpartition(".")[2] in ("A_log", "D")
        }


def _cfg(**changes: Any) -> DefaultCfg:
    sizes = {"input_size": (1, 28, 28), "min_input_size": (1, 8, 8), "num_classes": 10}
    changes = {"first_conv": "stem.conv", **sizes, **changes}
    return DefaultCfg(source="https://arxiv.org/abs/2503.01727", **changes)


_MICRO = _cfg(input_size=(1, 8, 8), min_input_size=(1, 4, 4))


def _build(options: dict[str, Any], **variant: Any) -> MambaPKD:
    return MambaPKD(configure(MambaPKDConfig(**variant), options))


@register_model(_cfg())
def mamba_pkd_teacher(**options: Any) -> MambaPKD:
    """The teacher: 128 channels, 8 blocks."""
    return _build(options)


@register_model(_cfg())
def mamba_pkd_s1(**options: Any) -> MambaPKD:
    """The smallest student: 16 channels, 2 blocks, 0.87 % of the work of the teacher's blocks."""
    return _build(options, dim=16, depth=2)


@register_model(_cfg())
def mamba_pkd_s2(**options: Any) -> MambaPKD:
    """Second student: 32 channels, 2 blocks, 2.4 %."""
    return _build(options, dim=32, depth=2)


@register_model(_cfg())
def mamba_pkd_s3(**options: Any) -> MambaPKD:
    """Third student: 32 channels, 3 blocks, 3.6 %."""
    return _build(options, dim=32, depth=3)


@register_model(_cfg())
def mamba_pkd_s4(**options: Any) -> MambaPKD:
    """Fourth student: 48 channels, 3 blocks, 6.8 %."""
    return _build(options, dim=48, depth=3)


@register_model(_cfg())
def mamba_pkd_s5(**options: Any) -> MambaPKD:
    """Fifth student: 64 channels, 3 blocks, 11.0 %."""
    return _build(options, dim=64, depth=3)


@register_model(_cfg())
def mamba_pkd_s6(**options: Any) -> MambaPKD:
    """Sixth student: 64 channels, 4 blocks, 14.7 %."""
    return _build(options, dim=64, depth=4)


@register_model(_cfg())
def mamba_pkd_s7(**options: Any) -> MambaPKD:
    """The largest student: 80 channels, 4 blocks, 21.6 %."""
    return _build(options, dim=80, depth=4)


@register_model(_MICRO)
def mamba_pkd_micro_teacher(**options: Any) -> MambaPKD:
    """For two CPU cores: 64 channels, 4 blocks, patches of 2 x 2; not in the paper."""
    return _build(options, dim=64, depth=4, patch_size=2)


@register_model(_MICRO)
def mamba_pkd_micro_s1(**options: Any) -> MambaPKD:
    """Smallest student of the small teacher: 8 channels, 1 block."""
    return _build(options, dim=8, depth=1, patch_size=2)


@register_model(_MICRO)
def mamba_pkd_micro_s2(**options: Any) -> MambaPKD:
    """Second student of the small teacher: 16 channels, 1 block."""
    return _build(options, dim=16, depth=1, patch_size=2)


@register_model(_MICRO)
def mamba_pkd_micro_s3(**options: Any) -> MambaPKD:
    """Third student of the small teacher: 16 channels, 2 blocks."""
    return _build(options, dim=16, depth=2, patch_size=2)


@register_model(_MICRO)
def mamba_pkd_micro_s4(**options: Any) -> MambaPKD:
    """Fourth student of the small teacher: 24 channels, 2 blocks."""
    return _build(options, dim=24, depth=2, patch_size=2)


@register_model(_MICRO)
def mamba_pkd_micro_s5(**options: Any) -> MambaPKD:
    """Largest student of the small teacher: 32 channels, 2 blocks."""
    return _build(options, dim=32, depth=2, patch_size=2)

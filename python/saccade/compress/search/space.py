"""What may be searched: choices for every layer, and their genes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from saccade.models._registry import configure
from saccade.models.mixformer import ATTENTION, MixFormerConfig

Genome = tuple[int, ...]
KINDS = tuple(ATTENTION)[:3]
SCALES = ("cifar10", "cpu")


@dataclass(frozen=True)
class Architecture:
    """One point of a space, without the genes of layers that it has not.

    Args:
        dim: channels of the tokens.
        heads, hidden, attention: heads, width of the feed-forward and kind of attention, by layer.
    """

    dim: int
    heads: tuple[int, ...]
    hidden: tuple[int, ...]
    attention: tuple[str, ...]

    @property
    def depth(self) -> int:
        """Layers."""
        return len(self.heads)


@dataclass(frozen=True)
class SearchSpace:
    """Choices of width and depth, and for every layer of heads, feed-forward and attention.

    A genome holds, as indices into the choices: width, depth, then feed-forward, heads and
    attention of as many layers as the deepest has. Genes of layers beyond the depth do nothing but
    are kept, mutated and crossed.

    Args:
        name: of the space.
        dims, depths, heads: choices, ascending.
        hidden: widths of the feed-forward; with `ratios`, multiples of d.
        attention: kinds of attention, names in `saccade.models.mixformer.ATTENTION`.
        head_dim: channels of a head.
        patch_size, img_size: of every architecture.
        ratios: whether `hidden` holds multiples of d.

    Raises:
        ValueError: a choice without values or with descending ones, or an unknown attention.
    """

    name: str
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    hidden: tuple[int, ...]
    attention: tuple[str, ...]
    head_dim: int = 64
    patch_size: int = 16
    img_size: int = 224
    ratios: bool = False

    def __post_init__(self) -> None:
        for name in ("dims", "depths", "heads", "hidden"):
            values = getattr(self, name)
            if not values or values[0] < 1 or list(values) != sorted(set(values)):
                raise ValueError(f"{name} must hold ascending positive numbers, got {values}.")
        unknown = sorted(set(self.attention) - set(ATTENTION))
        if unknown or not self.attention:
            raise ValueError(
                f"attention must name kinds of {', '.join(ATTENTION)}, got {self.attention}."
            )

    @property
    def max_depth(self) -> int:
        """Layers of the deepest architecture."""
        return self.depths[-1]

    @cached_property
    def choices(self) -> tuple[int, ...]:
        """Number of choices of every gene."""
        layers = self.max_depth
        per_layer = [
            len(c) for c in (self.hidden, self.heads, self.attention) for _ in range(layers)
        ]
        return (len(self.dims), len(self.depths), *per_layer)

    def count(self) -> int:
        """Number of architectures.

        >>> f"{search_space('mixed').count():.3g}", f"{search_space('softmax').count():.3g}"
        ('4.28e+23', '9.38e+16')
        """
        layer = len(self.hidden) * len(self.heads) * len(self.attention)
        per_dim: int = sum(layer**depth for depth in self.depths)
        return len(self.dims) * per_dim

    def decode(self, genome: Sequence[int]) -> Architecture:
        """The architecture of a genome."""
        layers = self.max_depth
        dim, depth = self.dims[genome[0]], self.depths[genome[1]]
        hidden, heads, kinds = (
            genome[2 + part * layers : 2 + part * layers + depth] for part in range(3)
        )
        scale = dim if self.ratios else 1
        return Architecture(
            dim,
            tuple(self.heads[gene] for gene in heads),
            tuple(scale * self.hidden[gene] for gene in hidden),
            tuple(self.attention[gene] for gene in kinds),
        )

    def sample(self, rng: np.random.Generator) -> Genome:
        """A genome with every gene uniform."""
        return tuple(map(int, rng.integers(self.choices)))

    def mutate(self, genome: Genome, rng: np.random.Generator, rate: float) -> Genome:
        """Draw every gene anew with probability `rate`."""
        chosen = rng.random(len(genome)) < rate
        return tuple(map(int, np.where(chosen, rng.integers(self.choices), genome)))

    def cross(self, one: Genome, other: Genome, rng: np.random.Generator) -> Genome:
        """Take every gene from one of the two, with equal chances."""
        return tuple(map(int, np.where(rng.random(len(one)) < 0.5, one, other)))

    def smallest(self) -> Architecture:
        """First choices throughout."""
        return self.decode([0] * len(self.choices))

    def largest(self) -> Architecture:
        """Last choices throughout, but the first kind of attention."""
        last = [number - 1 for number in self.choices]
        return self.decode(last[: -self.max_depth] + [0] * self.max_depth)

    def __contains__(self, arch: Architecture) -> bool:
        """Whether an architecture is a point of the space."""
        scale = arch.dim if self.ratios else 1
        return (
            arch.dim in self.dims
            and arch.depth in self.depths
            and len(arch.hidden) == len(arch.attention) == arch.depth
            and set(arch.heads) <= set(self.heads)
            and set(arch.hidden) <= {scale * choice for choice in self.hidden}
            and set(arch.attention) <= set(self.attention)
        )

    def options(self, arch: Architecture) -> dict[str, Any]:
        """Options of `create_model` for an architecture of this space.

        Dropout shrinks with the width, and stochastic depth grows over the deepest's layers.

        Raises:
            ValueError: the space has no such architecture.
        """
        if arch not in self:
            raise ValueError(f"the space {self.name} has no architecture {arch}.")
        return {
            "dim": arch.dim,
            "heads": list(arch.heads),
            "hidden": list(arch.hidden),
            "attention": list(arch.attention),
            "head_dim": self.head_dim,
            "patch_size": self.patch_size,
            "img_size": self.img_size,
            "ffn_drop_rate": 0.1 * arch.dim / self.dims[-1],
            "drop_path_depth": self.max_depth,
        }

    def config(self, arch: Architecture, **options: Any) -> MixFormerConfig:
        """The model's configuration of an architecture, for costs and building."""
        return configure(MixFormerConfig(), self.options(arch) | options)


_SCALED: dict[str, dict[str, Any]] = {
    "cifar10": {
        "dims": (320, 384, 448),
        "depths": (12, 13, 14),
        "heads": (5, 6, 7),
        "hidden": (672, 896, 1344, 1568, 1792),
    },
    "cpu": {
        "dims": (48, 64),
        "depths": (2, 3, 4),
        "heads": (2, 4),
        "hidden": (2, 3, 4),
        "ratios": True,
        "head_dim": 16,
        "patch_size": 1,
        "img_size": 8,
    },
}
SPACES = {
    "softmax": ("softmax",),
    "efficient": ("cosformer",),
    "mixed": KINDS,
    "mixed2": KINDS[:2],
}


def search_space(name: str, scale: str = "cifar10", **changes: Any) -> SearchSpace:
    """A space by name.

    Args:
        name: "softmax", "efficient" (cosFormer), "mixed" (both and relative keys) or "mixed2"
            (cosFormer and softmax).
        scale: "cifar10", the published sizes, or "cpu", for 8 x 8 pixels and two cores.
        changes: fields of `SearchSpace` to replace.

    Raises:
        ValueError: an unknown name or scale.

    >>> search_space("mixed", "cpu").count()
    222264
    """
    if name not in SPACES or scale not in _SCALED:
        raise ValueError(
            f"name must be one of {', '.join(SPACES)} and scale of {', '.join(_SCALED)}, got "
            f"{name!r} and {scale!r}."
        )
    values = {"name": name, "attention": SPACES[name], **_SCALED[scale], **changes}
    return SearchSpace(**values)


@dataclass(frozen=True)
class TranslationSpace:
    """Choices for encoder and decoder of a translation model; for reference, no model is built.

    Args:
        embed, ffn, heads: choices of both sides; heads also of the attention between them.
        encoder_layers, decoder_layers: choices of the depths.
        context: encoder layers that a decoder layer may attend to: -1 the last, 1 the last two, 2
            the last three.
        qkv_dim: of the super-net.
    """

    embed: tuple[int, ...]
    ffn: tuple[int, ...]
    heads: tuple[int, ...]
    encoder_layers: tuple[int, ...] = (6,)
    decoder_layers: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    context: tuple[int, ...] = (-1, 1, 2)
    qkv_dim: int | None = None


TRANSLATION = {
    "wmt_large": TranslationSpace(
        (640, 768, 1024), (2048, 3072, 4096, 5120), (4, 8, 16), qkv_dim=1024
    ),
    "hat": TranslationSpace((512, 640), (1024, 2048, 3072), (4, 8)),
}

"""Host side of the kernels: geometry on three axes, and the choice of tiles."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

Triple = tuple[int, int, int]

# Programs that keep a large GPU busy: a few for each multiprocessor.
PROGRAMS = 1024


@dataclass(frozen=True)
class Geometry:
    """Window of every axis; inputs with fewer than three axes get leading axes of length 1."""

    rank: int
    lengths: Triple
    kernel: Triple
    stride: Triple
    dilation: Triple
    causal: Triple

    @staticmethod
    def lift(
        lengths: Sequence[int],
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        causal: Sequence[int],
    ) -> Geometry:
        return Geometry(
            len(lengths),
            lift(lengths, 1),
            lift(kernel, 1),
            lift(stride, 1),
            lift(dilation, 1),
            lift([int(flag) for flag in causal], 0),
        )

    @property
    def positions(self) -> Triple:
        """Length of the longest dilation group of each axis."""
        return _triple(-(-n // d) for n, d in zip(self.lengths, self.dilation, strict=True))

    @property
    def groups(self) -> int:
        return math.prod(self.dilation)

    def tiles(self, box: Triple) -> Triple:
        """Boxes along each axis of the longest dilation group."""
        return _triple(-(-n // b) for n, b in zip(self.positions, box, strict=True))

    def reach(self, box: Triple) -> Triple:
        """Keys along each axis that the queries of a box see together, at most."""
        return _triple(
            min(n, k + (b - 1 + s - 1) // s * s)
            for n, k, s, b in zip(self.positions, self.kernel, self.stride, box, strict=True)
        )


@dataclass(frozen=True)
class Blocks:
    """Sizes of the tiles for one padded head dimension.

    own: tokens that a program owns; walked: tokens of a step of its walk; bias_keys: the most keys
    in a step of the bias gradient.
    """

    own: int
    walked: int
    bias_keys: int
    num_warps: int
    num_stages: int


# (widest padded head dimension, tiles), by element size. Chosen by compiling for sm_80 and sm_90,
# so that registers hardly spill (tools/triton_compile_check.py); not tuned by timing.
_BLOCKS: dict[int, tuple[tuple[int, Blocks], ...]] = {
    2: (
        (64, Blocks(own=64, walked=32, bias_keys=64, num_warps=4, num_stages=2)),
        (128, Blocks(own=64, walked=32, bias_keys=64, num_warps=8, num_stages=2)),
        (256, Blocks(own=32, walked=32, bias_keys=64, num_warps=8, num_stages=2)),
    ),
    4: (
        (64, Blocks(own=32, walked=16, bias_keys=64, num_warps=4, num_stages=2)),
        (128, Blocks(own=32, walked=32, bias_keys=64, num_warps=8, num_stages=2)),
        (256, Blocks(own=32, walked=16, bias_keys=32, num_warps=8, num_stages=2)),
    ),
}


def lift(values: Sequence[int], fill: int) -> Triple:
    """Three entries, with `fill` for the axes that are not there."""
    return _triple(itertools.chain([fill] * (3 - len(values)), values))


def blocks_for(head_pad: int, element_size: int) -> Blocks:
    """Tiles that keep rows of head_pad elements within registers and shared memory."""
    return next(blocks for width, blocks in _BLOCKS[element_size] if head_pad <= width)


@functools.lru_cache(maxsize=1024)
def choose_boxes(geometry: Geometry, own: int, walked: int) -> tuple[Triple, Triple]:
    """Shapes of the tile that a program owns and of the tiles that it walks.

    Of all shapes with powers of two that hold `own` and `walked` tokens, the pair with the fewest
    tile products for the whole input. In two dimensions that is a small box, not a row: 8 x 8
    queries with a 7 x 7 window see 14 x 14 keys, a row of 64 sees 7 x 70. Among equals the one with
    the longest last axis, whose tokens are neighbours in memory.
    """

    def cost(pair: tuple[Triple, Triple]) -> tuple[int, int, int]:
        mine, theirs = pair
        steps = math.prod(-(-n // b) for n, b in zip(geometry.reach(mine), theirs, strict=True))
        return math.prod(geometry.tiles(mine)) * steps, -theirs[2], -mine[2]

    shapes = itertools.product(_boxes(own, geometry.rank), _boxes(walked, geometry.rank))
    return min(shapes, key=cost)


def has_whole_tiles(geometry: Geometry, own: Triple, walked: Triple) -> bool:
    """Whether a walked tile can lie in the windows of all queries of an owned one."""
    return all(
        theirs <= n and (n == k or theirs + (mine - 1) // s * s <= k)
        for mine, theirs, n, k, s in zip(
            own, walked, geometry.positions, geometry.kernel, geometry.stride, strict=True
        )
    )


@functools.lru_cache(maxsize=1024)
def choose_bias_boxes(geometry: Geometry, max_keys: int) -> tuple[Triple, Triple]:
    """Boxes of queries (and of offsets) and of keys for the bias gradient.

    Keys span twice the queries on each axis. Of the boxes with 16 queries or more and at most
    max_keys keys, the one with the least work, where a step costs its keys and 64 keys more.
    """
    shapes = [
        (own, _triple(2 * b if b > 1 else 1 for b in own))
        for size in (16, 32, 64)
        for own in _boxes(size, geometry.rank)
    ]

    def cost(pair: tuple[Triple, Triple]) -> tuple[int, int]:
        own, keys = pair
        offsets = math.prod(-(-(2 * k - 1) // b) for k, b in zip(geometry.kernel, own, strict=True))
        return math.prod(geometry.tiles(own)) * offsets * (math.prod(keys) + 64), -own[2]

    return min((pair for pair in shapes if math.prod(pair[1]) <= max_keys), key=cost)


def share_of_slot(count: int, programs: int) -> int:
    """Work items of a slot, when each of `programs` sums is split over slots.

    Depends on sizes alone, not on the GPU, so that a sum has the same order everywhere.
    """
    slots = max(1, min(count, PROGRAMS // max(1, programs)))
    return max(1, -(-count // slots))


def _boxes(size: int, rank: int) -> Iterator[Triple]:
    exponent = size.bit_length() - 1
    for first in range(exponent + 1 if rank >= 3 else 1):
        for second in range(exponent - first + 1 if rank >= 2 else 1):
            yield 1 << first, 1 << second, 1 << (exponent - first - second)


def _triple(values: Iterable[int]) -> Triple:
    first, second, third = values
    return first, second, third

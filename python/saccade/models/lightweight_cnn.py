"""The lightweight convolutional network of 14,862 parameters: two tiny networks under one head.

"Building Efficient Lightweight CNN Models", Nathan Isong, 2025. https://arxiv.org/abs/2501.15547

Faithful (abstract): 14,862 parameters for 28 x 28 x 1, fewer than 20,000 for CIFAR-10, 0.17 MB with
the optimiser's state; two networks of one form, the second one trained on augmented images, joined
by their outputs. The layer table is inferred: of all networks of this kind with 14,862 parameters
it is the only one of round sizes (3 x 3, valid, 10, 20, 32).

Deviations: the paper's text and code were not at hand. The branches are joined by their softmax,
`join="logits"` by what precedes it. `variant="dense128"` is the form that third-party notebooks
build, and has 257,546 parameters. The training recipe is `saccade.learn.two_stage`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from saccade.models._classifier import Classifier, DefaultCfg
from saccade.models._registry import configure, register_model

VARIANTS = ("canonical", "dense128")
JOINS = ("softmax", "logits")


@dataclass(frozen=True)
class LightweightCNNConfig:
    """Every field is an option of `create_model`.

    Args:
        variant: "canonical": valid convolutions, branches of one dense layer, joined by their
            outputs; "dense128": same convolutions, a dense layer of `hidden` in every branch,
            joined by it.
        widths: channels of the two convolutions of a branch.
        hidden: width of the dense layer before the last one: 32 in the joined head ("canonical"),
            128 in every branch ("dense128"); default by variant.
        join: "softmax" or "logits": which form of a canonical branch's output is joined.
        branch_classes: outputs of a canonical branch; default `num_classes`, or 10 without classes.
        img_size: side of the square image; the dense layers are made for it.
        drop_rate: dropout before the classifier.
        drop_path_rate: must be 0: the paper has no stochastic depth.
        num_classes: size of the classifier; 0 gives the features before it.
        in_chans: channels of the image.
    """

    variant: str = "canonical"
    widths: tuple[int, int] = (10, 20)
    hidden: int | None = None
    join: str = "softmax"
    branch_classes: int | None = None
    img_size: int = 28
    drop_rate: float = 0.3
    drop_path_rate: float = 0.0
    num_classes: int = 10
    in_chans: int = 1

    def __post_init__(self) -> None:
        for name, choices in (("variant", VARIANTS), ("join", JOINS)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}."
                )
        if len(self.widths) != 2 or min(*self.widths, self.dense, self.joined) < 1:
            raise ValueError(
                "widths must hold 2 numbers, and with hidden and branch_classes be at least 1, got "
                f"{self.widths}, {self.hidden} and {self.branch_classes}."
            )
        if self.side < 1:
            raise ValueError(
                f"img_size must be at least {self.least} for variant {self.variant}, got "
                f"{self.img_size}."
            )
        if self.drop_path_rate:
            raise ValueError(
                f"drop_path_rate must be 0: this network has no stochastic depth, got "
                f"{self.drop_path_rate}."
            )

    @property
    def valid(self) -> bool:
        """Whether the convolutions leave the border out."""
        return self.variant == "canonical"

    @property
    def least(self) -> int:
        """Side of the smallest image of which the convolutions leave a pixel."""
        return 10 if self.valid else 4

    @property
    def side(self) -> int:
        """Side of a branch's last map."""
        side = self.img_size
        for _ in self.widths:
            side = (side - 2 if self.valid else side) // 2
        return side

    @property
    def dense(self) -> int:
        """Width of the dense layer before the last one."""
        default = 32 if self.variant == "canonical" else 128
        return default if self.hidden is None else self.hidden

    @property
    def joined(self) -> int:
        """Outputs of a branch that are joined with the other's."""
        if self.variant == "dense128":
            return self.dense
        return self.num_classes or 10 if self.branch_classes is None else self.branch_classes

    @property
    def flat(self) -> int:
        """Numbers in a branch's last map."""
        return self.widths[1] * self.side**2


class ConvBlock(nn.Module):
    """Convolution of 3 x 3, ReLU, and the maximum of every 2 x 2 pixels; odd rests are dropped."""

    def __init__(self, in_channels: int, channels: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=padding)
        self.act = nn.ReLU()
        self.maxpool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, (H - 2) // 2, (W - 2) // 2], or of H // 2 with padding."""
        y: Tensor = self.maxpool(self.act(self.conv(x)))
        return y


class Pair(nn.Module):
    """One layer of both branches.

    Args:
        make: makes the layer of one branch.
        shared: both read the same input; else the halves of axis 1 are theirs.
    """

    def __init__(self, make: Callable[[], nn.Module], shared: bool = False) -> None:
        super().__init__()
        self.branches = nn.ModuleList([make(), make()])
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor:
        """[B, C or 2 C, ...] -> [B, 2 O, ...]: the first branch's channels, then the second's."""
        halves = (x, x) if self.shared else x.chunk(2, 1)
        outputs = (branch(half) for branch, half in zip(self.branches, halves, strict=True))
        return torch.cat(list(outputs), 1)


def _init(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


class _Sized(Classifier):
    """What the network and its branch share: the check of the size."""

    cfg: LightweightCNNConfig

    def flatten(self, x: Tensor) -> Tensor:
        """[B, C, side, side] -> [B, C side side].

        Raises:
            ValueError: the map is not of `img_size`.
        """
        side, size = self.cfg.side, self.cfg.img_size
        if x.shape[2:] != (side, side):
            raise ValueError(
                f"this lightweight_cnn was made for images of {size} x {size}, whose last map is "
                f"{side} x {side}; got a map of {x.shape[2]} x {x.shape[3]}. Give img_size to "
                "create_model, or take to_fully_conv()."
            )
        return x.flatten(1)


class Branch(_Sized):
    """One of the two networks, which the first stage trains alone or in `DualInputOutput`.

    Shape:
        [B, in_chans, img_size, img_size] -> logits [B, num_classes].
    """

    def __init__(self, cfg: LightweightCNNConfig) -> None:
        padding = 0 if cfg.valid else 1
        first, second = cfg.widths
        stages = [[ConvBlock(cfg.in_chans, first, padding)], [ConvBlock(first, second, padding)]]
        super().__init__(
            nn.Identity(), stages, cfg.widths, nn.Identity(), 0, cfg.drop_rate, (2, 4), _init
        )
        self.dense: nn.Module = nn.Identity()
        if not cfg.valid:
            self.dense = nn.Sequential(nn.Linear(cfg.flat, cfg.dense), nn.ReLU()).apply(_init)
        self.num_features = cfg.flat if cfg.valid else cfg.dense
        self.cfg, self.least_size = cfg, cfg.least
        self.reset_classifier(cfg.num_classes)

    def pool(self, x: Tensor) -> Tensor:
        """The map, flattened, and in variant dense128 through its dense layer."""
        y: Tensor = self.dense(self.flatten(x))
        return y

    def prune_intermediate_layers(self, indices: Sequence[int]) -> None:
        """Drop the dense layers, and the stages after the last of `indices`."""
        super().prune_intermediate_layers(indices)
        self.dense = nn.Identity()


class LightweightCNN(_Sized):
    """The unified network: both branches see the image, and a small head reads what they say.

    Shape:
        [B, in_chans, img_size, img_size] -> logits [B, num_classes], or the features before them.
    """

    def __init__(self, cfg: LightweightCNNConfig) -> None:
        padding = 0 if cfg.valid else 1
        first, second = cfg.widths
        stages = [
            [Pair(lambda: ConvBlock(cfg.in_chans, first, padding), shared=True)],
            [Pair(lambda: ConvBlock(first, second, padding))],
        ]
        widths = (2 * first, 2 * second)
        super().__init__(
            nn.Identity(), stages, widths, nn.Identity(), 0, cfg.drop_rate, (2, 4), _init
        )
        self.dense: nn.Module = Pair(lambda: nn.Linear(cfg.flat, cfg.joined)).apply(_init)
        self.hidden: nn.Module = nn.Identity()
        self.num_features = 2 * cfg.joined
        if cfg.valid:
            self.hidden = nn.Sequential(nn.Linear(2 * cfg.joined, cfg.dense), nn.ReLU())
            self.hidden.apply(_init)
            self.num_features = cfg.dense
        self.cfg, self.least_size = cfg, cfg.least
        self.reset_classifier(cfg.num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new head on; 0 takes it off. The branches keep their outputs."""
        super().reset_classifier(num_classes)
        if hasattr(self, "build_config"):
            self.build_config["kwargs"].setdefault("branch_classes", self.cfg.joined)

    def outputs(self, x: Tensor) -> Tensor:
        """What `forward_features` gives -> the branches' outputs before the join, [B, 2, joined]"""
        y: Tensor = self.dense(self.flatten(x))
        pairs: Tensor = y.unflatten(1, (2, -1))
        return pairs

    def pool(self, x: Tensor) -> Tensor:
        """What `forward_features` gives -> the joined features that the last layer reads."""
        y: Tensor = self.hidden(_join(self.outputs(x), self.cfg).flatten(1))
        return y

    def prune_intermediate_layers(self, indices: Sequence[int]) -> None:
        """Drop the dense layers, and the stages after the last of `indices`."""
        super().prune_intermediate_layers(indices)
        self.dense = self.hidden = nn.Identity()

    @torch.no_grad()
    def load_branches(self, first: Branch, second: Branch) -> LightweightCNN:
        """Copy the weights of two trained branches; the head stays as it is.

        Raises:
            ValueError: a branch does not fit; no weight is changed then.
        """
        pairs: list[tuple[Tensor, Tensor]] = []
        for index, branch in enumerate((first, second)):
            if self.cfg.valid and not branch.num_classes:
                raise ValueError(f"branch {index} has no classes, whose layer is to be copied.")
            # dense128 joins the layer before the branch's classifier, which is left behind
            last = branch.head if self.cfg.valid else branch.dense[0]  # type: ignore[index]
            sources = [*(block for block in branch.features), last]
            targets = [layer.branches[index] for layer in (*self.features, self.dense)]
            for source, target in zip(sources, targets, strict=True):
                for (name, p), q in zip(
                    source.named_parameters(), target.parameters(), strict=True
                ):
                    if p.shape != q.shape:
                        raise ValueError(
                            f"{name} of branch {index} must have the shape {list(q.shape)}, got "
                            f"{list(p.shape)}."
                        )
                    pairs.append((p, q))
        for p, q in pairs:
            q.copy_(p)
        return self

    def unfreezing_groups(self) -> list[list[nn.Module]]:
        """The layers in the order in which the recipe sets them free, head first."""
        return [[self.hidden, self.head], [self.dense], [self.features[1]], [self.features[0]]]

    def to_fully_conv(self) -> FullyConv:
        """The same function with convolutions for the dense layers, for images of any size."""
        return FullyConv(self)


def _join(outputs: Tensor, cfg: LightweightCNNConfig) -> Tensor:
    """Softmax, logits or ReLU of the branches' outputs [B, 2, joined, ...]."""
    if cfg.variant == "dense128":
        return outputs.relu()
    return outputs.softmax(2) if cfg.join == "softmax" else outputs


class FullyConv(nn.Module):
    """A `LightweightCNN` whose dense layers are convolutions with the same weights.

    Shape:
        [B, in_chans, H, W] -> logits [B, num_classes, H', W'], one for every position of the window
        of `img_size`; 1 x 1 for an image of that size.
    """

    def __init__(self, model: LightweightCNN) -> None:
        super().__init__()
        cfg = self.cfg = model.cfg
        self.features = model.features
        branches: Any = model.dense.branches
        layers = iter([as_conv(linear, cfg.widths[1], cfg.side) for linear in branches])
        self.dense = Pair(lambda: next(layers))
        self.hidden: nn.Module = nn.Identity()
        if cfg.valid:
            hidden: Any = model.hidden
            self.hidden = nn.Sequential(as_conv(hidden[0], 2 * cfg.joined, 1), nn.ReLU())
        self.drop = model.drop
        head = model.head
        self.head = (
            as_conv(head, model.num_features, 1) if isinstance(head, nn.Linear) else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> [B, num_classes, H', W']."""
        y = self.dense(self.features(x)).unflatten(1, (2, -1))
        logits: Tensor = self.head(self.drop(self.hidden(_join(y, self.cfg).flatten(1, 2))))
        return logits


def as_conv(linear: nn.Linear, channels: int, side: int) -> nn.Conv2d:
    """The convolution that does what a dense layer does to a flattened map.

    Args:
        linear: reads channels side side numbers.
        channels: of the map.
        side: of the map.

    Returns:
        A valid convolution of side x side with a copy of the weights.

    >>> as_conv(nn.Linear(500, 10), 20, 5).weight.shape
    torch.Size([10, 20, 5, 5])
    """
    weight = linear.weight
    conv = nn.Conv2d(channels, linear.out_features, side, bias=linear.bias is not None)
    conv = conv.to(weight.device, weight.dtype)
    with torch.no_grad():
        conv.weight.copy_(weight.unflatten(1, (channels, side, side)))
        if conv.bias is not None:
            conv.bias.copy_(linear.bias)
    return conv


def mebibytes(model: nn.Module, slots: int = 0) -> float:
    """Size of a model's parameters in MiB.

    Args:
        model: any module.
        slots: numbers that the file keeps beside every parameter; 2 for Adam, as in the file of
            0.17 MB of the paper's abstract.

    >>> round(mebibytes(lightweight_cnn(), slots=2), 3)
    0.17
    """
    total = math.fsum(p.numel() * p.element_size() for p in model.parameters())
    return (1 + slots) * total / 2**20


_CFG = DefaultCfg(
    source="https://arxiv.org/abs/2501.15547",
    input_size=(1, 28, 28),
    min_input_size=(1, 28, 28),
    mean=(0.0,),
    std=(1.0,),
    num_classes=10,
    first_conv="features.0.branches.0.conv",
)


@register_model(_CFG)
def lightweight_cnn(**options: Any) -> LightweightCNN:
    """The network of 14,862 parameters; 19,622 with `in_chans=3, img_size=32`."""
    return LightweightCNN(configure(LightweightCNNConfig(), options))


@register_model(_CFG)
def lightweight_cnn_dense128(**options: Any) -> LightweightCNN:
    """The form of the third-party notebooks, 257,546 parameters."""
    return LightweightCNN(configure(LightweightCNNConfig(variant="dense128"), options))


@register_model(
    DefaultCfg(
        source="https://arxiv.org/abs/2501.15547",
        input_size=(1, 28, 28),
        min_input_size=(1, 28, 28),
        mean=(0.0,),
        std=(1.0,),
        num_classes=10,
        first_conv="features.0.conv",
    )
)
def lightweight_cnn_branch(**options: Any) -> Branch:
    """One branch alone, 6,930 parameters; without dropout, as in the inferred table."""
    return Branch(configure(LightweightCNNConfig(drop_rate=0.0), options))

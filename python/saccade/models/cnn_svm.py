"""The convolutional network whose last layer is a support vector machine.

"An Architecture Combining Convolutional Neural Network (CNN) and Support Vector Machine (SVM) for
Image Classification", Abien Fred Agarap, 2017. https://arxiv.org/abs/1712.03541

Faithful (paper's table 2 and its code): layers, dropout, initialisation, parameter count. The last
layer gives scores; what makes it a support vector machine is the loss, `TrainConfig(loss="svm")`
(`saccade.learn.losses.HingeLoss`), and with `loss="ce"` the same network is the paper's baseline.

Deviations: the class is the largest score; the code takes the sign of the scores first, so ties
go to the lowest class (`predict(scores, sign=True)`). Channels and image size are free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from saccade.models._classifier import Classifier, DefaultCfg
from saccade.models._registry import configure, register_model


@dataclass(frozen=True)
class CNNSVMConfig:
    """Every field is an option of `create_model`.

    Args:
        widths: channels of the two convolutions.
        hidden: width of the dense layer.
        img_size: side of the square image; the dense layer is made for it.
        drop_rate: dropout before the classifier.
        drop_path_rate: must be 0: the paper has no stochastic depth.
        num_classes: size of the classifier; 0 gives the dense layer's features.
        in_chans: channels of the image.
    """

    widths: tuple[int, int] = (32, 64)
    hidden: int = 1024
    img_size: int = 28
    drop_rate: float = 0.5
    drop_path_rate: float = 0.0
    num_classes: int = 10
    in_chans: int = 1

    def __post_init__(self) -> None:
        if len(self.widths) != 2 or min(*self.widths, self.hidden, self.img_size) < 1:
            raise ValueError(
                "widths must hold 2 numbers, and with hidden and img_size be at least 1, got "
                f"{self.widths}, {self.hidden} and {self.img_size}."
            )
        if self.drop_path_rate:
            raise ValueError(
                f"drop_path_rate must be 0: this network has no stochastic depth, got "
                f"{self.drop_path_rate}."
            )


def predict(scores: Tensor, sign: bool = False) -> Tensor:
    """Class of every row of scores.

    Args:
        scores: [B, K].
        sign: take the sign first, as the published code does: of several classes with a positive
            score the lowest wins.

    Returns:
        int64 [B].

    >>> import torch
    >>> scores = torch.tensor([[0.5, 2.0]])
    >>> predict(scores), predict(scores, sign=True)
    (tensor([1]), tensor([0]))
    """
    return (scores.sign() if sign else scores).argmax(1)


class ConvBlock(nn.Module):
    """Convolution of 5 x 5, ReLU, and the maximum of every 2 x 2 pixels."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 5, padding=2)
        self.act = nn.ReLU()
        self.maxpool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, ceil(H / 2), ceil(W / 2)]."""
        y: Tensor = self.maxpool(self.act(self.conv(x)))
        return y


def _init(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=0.1, a=-0.2, b=0.2)
        nn.init.constant_(module.bias, 0.1)  # type: ignore[arg-type]


class CNNSVM(Classifier):
    """The network of the paper; `create_model("cnn_svm")` makes one.

    Shape:
        [B, in_chans, img_size, img_size] -> scores [B, num_classes], or [B, hidden] without
        classes.
    """

    def __init__(self, cfg: CNNSVMConfig) -> None:
        first, second = cfg.widths
        stages = [[ConvBlock(cfg.in_chans, first)], [ConvBlock(first, second)]]
        super().__init__(
            nn.Identity(), stages, cfg.widths, nn.Identity(), 0, cfg.drop_rate, (2, 4), _init
        )
        side = -(-cfg.img_size // 4)
        self.dense: nn.Module = nn.Sequential(
            nn.Linear(second * side * side, cfg.hidden), nn.ReLU()
        ).apply(_init)
        self.num_features = cfg.hidden
        self.reset_classifier(cfg.num_classes)
        self.cfg = cfg

    def pool(self, x: Tensor) -> Tensor:
        """The map, flattened, through the dense layer.

        Raises:
            ValueError: the map is not of `img_size`.
        """
        side = -(-self.cfg.img_size // 4)
        if x.shape[2:] != (side, side):
            raise ValueError(
                f"this cnn_svm was made for images of {self.cfg.img_size} x {self.cfg.img_size}, "
                f"whose last map is {side} x {side}; got a map of {x.shape[2]} x {x.shape[3]}. "
                "Give img_size to create_model."
            )
        y: Tensor = self.dense(x.flatten(1))
        return y

    def prune_intermediate_layers(self, indices: Sequence[int]) -> None:
        """Drop the dense layer, the head, and the stages after the last of `indices`."""
        super().prune_intermediate_layers(indices)
        self.dense = nn.Identity()


@register_model(
    DefaultCfg(
        source="https://arxiv.org/abs/1712.03541",
        input_size=(1, 28, 28),
        min_input_size=(1, 28, 28),
        mean=(0.0,),
        std=(1.0,),
        num_classes=10,
        first_conv="features.0.conv",
    )
)
def cnn_svm(**options: Any) -> CNNSVM:
    """CNN-SVM of the paper."""
    return CNNSVM(configure(CNNSVMConfig(), options))

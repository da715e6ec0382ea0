"""What every classifier offers: stem, blocks in stages, norm, pooling, head, and timm's methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from saccade.models._layers import init_weights


@dataclass(frozen=True)
class DefaultCfg:
    """What an architecture's users need beside the code: sizes, normalisation, keys, origin."""

    source: str
    licence: str = "Apache-2.0 (code); no weights are distributed"
    input_size: tuple[int, int, int] = (3, 224, 224)
    min_input_size: tuple[int, int, int] = (3, 32, 32)
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    interpolation: str = "bilinear"
    crop_pct: float = 1.0
    num_classes: int = 1000
    classifier: str = "head"
    first_conv: str = "stem.0.conv"


class FeatureInfo(list[dict[str, Any]]):
    """One entry a feature map: `num_chs`, `reduction` and `module`.

    `reduction` is the input's size over the map's, `module` the submodule that makes the map.
    """

    def channels(self) -> list[int]:
        """Channels of every map."""
        return [entry["num_chs"] for entry in self]

    def reduction(self) -> list[int]:
        """Input size over map size, for every map."""
        return [entry["reduction"] for entry in self]


class Classifier(nn.Module):
    """Stem, blocks in stages, norm, mean over the map, head.

    Args:
        stem: image to first map.
        stages: the blocks of every stage.
        widths: channels that every stage gives.
        norm: norm of the last map.
        num_classes: size of the head; 0 gives pooled features.
        drop_rate: dropout before the head.
        reductions: input size over map size, of every stage; default 4, 8, 16 ...
        init: called with every module; default `init_weights`.

    Shape:
        [B, in_chans, H, W] -> [B, num_classes], or [B, num_features] without classes.
    """

    default_cfg: DefaultCfg
    build_config: dict[str, Any]
    # Pixels a side that leave every layer something to read.
    least_size: int = 1

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Sequence[nn.Module]],
        widths: Sequence[int],
        norm: nn.Module,
        num_classes: int,
        drop_rate: float = 0.0,
        reductions: Sequence[int] | None = None,
        init: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        reductions = reductions or [4 << stage for stage in range(len(stages))]
        self.stem = stem
        self.features = nn.Sequential(*(block for blocks in stages for block in blocks))
        self.stage_ends: list[int] = []
        for blocks in stages:
            self.stage_ends.append((self.stage_ends or [-1])[-1] + len(blocks))
        self.feature_info = FeatureInfo(
            {"num_chs": width, "reduction": reduction, "module": f"features.{end}"}
            for width, reduction, end in zip(widths, reductions, self.stage_ends, strict=True)
        )
        self.num_features = widths[-1]
        self.num_classes = num_classes
        self.norm = norm
        self.drop = nn.Dropout(drop_rate)
        self.head = self._head(num_classes)
        self.grad_checkpointing = False
        self._init = init or init_weights
        self.apply(self._init)

    def _head(self, num_classes: int) -> nn.Module:
        if num_classes < 0:
            raise ValueError(f"num_classes must be at least 0, got {num_classes}.")
        return nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def check_images(self, x: Tensor) -> None:
        """Refuse what is not a batch of images with the channels of the first convolution, at
        least `least_size` pixels a side.

        Raises:
            ValueError: another number of axes or channels, or images that are too small.
        """
        channels = next((m.in_channels for m in self.modules() if isinstance(m, nn.Conv2d)), None)
        if x.dim() != 4 or channels not in (None, x.shape[1]):
            raise ValueError(
                f"images must have shape [B, {channels or 'C'}, H, W], got {tuple(x.shape)}."
            )
        if min(x.shape[2:]) < self.least_size:
            raise ValueError(
                f"images must have at least {self.least_size} x {self.least_size} pixels, got "
                f"{x.shape[2]} x {x.shape[3]}."
            )

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.grad_checkpointing and self.training:
            recomputed: Tensor = checkpoint(block, x, use_reentrant=False)
            return recomputed
        y: Tensor = block(x)
        return y

    def forward_intermediates(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """The maps after the stages `indices`, NCHW, in that order; later stages are not run."""
        ends = [self.stage_ends[index] for index in indices]
        maps: dict[int, Tensor] = {}
        x = self.stem(x)
        for position, block in enumerate(self.features):
            x = self._run(block, x)
            if position in ends:
                maps[position] = x
            if position == max(ends):
                break
        return [maps[end] for end in ends]

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> the last map after its norm, [B, num_features, ...]."""
        x = self.stem(x)
        for block in self.features:
            x = self._run(block, x)
        y: Tensor = self.norm(x)
        return y

    def pool(self, x: Tensor) -> Tensor:
        """What `forward_features` gives -> [B, num_features]: the mean over the map."""
        return x.mean((2, 3))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map -> logits; pooled features with `pre_logits`."""
        pooled: Tensor = self.drop(self.pool(x))
        if pre_logits:
            return pooled
        logits: Tensor = self.head(pooled)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> [B, num_classes].

        Raises:
            ValueError: x is not a batch of images that this model takes.
        """
        self.check_images(x)
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The head; identity without classes."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new head on; 0 takes it off."""
        like = next(self.parameters())
        self.head = self._head(num_classes).apply(self._init).to(like.device, like.dtype)
        self._remember(num_classes)

    def _remember(self, num_classes: int) -> None:
        """Let `load_model` build what a new head made of this model."""
        self.num_classes = num_classes
        if hasattr(self, "build_config"):
            self.build_config["kwargs"]["num_classes"] = num_classes

    def prune_intermediate_layers(self, indices: Sequence[int]) -> None:
        """Drop the head, the last norm, and the stages after the last of `indices`."""
        self.features = self.features[: self.stage_ends[max(indices)] + 1]
        self.norm, self.head, self.num_classes = nn.Identity(), nn.Identity(), 0

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block in the backward pass; batch norm then counts each batch twice."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Parameters that the recipe does not decay: none, unless a model says otherwise."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters by depth, for layer-wise rates; `coarse`: stem and rest."""
        if coarse:
            return {"stem": r"^stem", "blocks": r"^(features|norm)"}
        return {"stem": r"^stem", "blocks": [(r"^features\.(\d+)", None), (r"^norm", (99999,))]}

    def checkpoint_filter(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the keys of published checkpoints to this model's; keys of its own pass."""
        return state


class FeatureExtractor(nn.Module):
    """The stages of a classifier without its head, so that every parameter gets a gradient.

    Args:
        model: a classifier; it is pruned in place.
        out_indices: stages in the order wanted, negative ones from the end; default all.

    Raises:
        ValueError: a stage that the model has not, or one named twice.
    """

    default_cfg: DefaultCfg
    build_config: dict[str, Any]

    def __init__(self, model: Classifier, out_indices: Sequence[int] | None = None) -> None:
        super().__init__()
        count = len(model.feature_info)
        given = list(range(count)) if out_indices is None else list(out_indices)
        if not given or any(not -count <= index < count for index in given):
            raise ValueError(
                f"out_indices must name some of the {count} stages, -{count} to {count - 1}, "
                f"got {given}."
            )
        self.out_indices = [index % count for index in given]
        if len(set(self.out_indices)) != len(given):
            raise ValueError(f"out_indices must name every stage once, got {given}.")
        self.feature_info = FeatureInfo(model.feature_info[index] for index in self.out_indices)
        model.prune_intermediate_layers(self.out_indices)
        self.model = model

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> the maps [B, C_i, H_i, W_i], in the order of `out_indices`."""
        self.model.check_images(x)
        return self.model.forward_intermediates(x, self.out_indices)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block in the backward pass to save memory."""
        self.model.set_grad_checkpointing(enable)

"""timm's inception_resnet_v2 behind the methods of this package's classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from saccade._extras import require
from saccade.models._classifier import Classifier, FeatureInfo


@dataclass(frozen=True)
class SlimConfig:
    """The options of `inception_resnet_v2_slim`.

    Args:
        drop_rate: dropout before the classifier.
        drop_path_rate: must be 0: there is no stochastic depth.
        num_classes: size of the classifier; 0 gives pooled features.
        in_chans: channels of the image.
    """

    drop_rate: float = 0.2
    drop_path_rate: float = 0.0
    num_classes: int = 1000
    in_chans: int = 3

    def __post_init__(self) -> None:
        if self.drop_path_rate:
            raise ValueError(
                f"drop_path_rate must be 0: there is no stochastic depth in this network, got "
                f"{self.drop_path_rate}."
            )
        if self.num_classes < 0:
            raise ValueError(f"num_classes must be at least 0, got {self.num_classes}.")


class InceptionResNetV2Slim(Classifier):
    """timm's inception_resnet_v2, the network of TF-slim, behind this package's methods."""

    least_size = 75

    def __init__(self, cfg: SlimConfig) -> None:
        nn.Module.__init__(self)
        timm = require("timm", extra="models", purpose="inception_resnet_v2_slim")
        self.model = timm.create_model(
            "inception_resnet_v2",
            num_classes=cfg.num_classes,
            in_chans=cfg.in_chans,
            drop_rate=cfg.drop_rate,
        )
        self.num_features, self.num_classes = self.model.num_features, cfg.num_classes
        self.feature_info = FeatureInfo(
            {**entry, "module": f"model.{entry['module']}"} for entry in self.model.feature_info
        )

    def forward_intermediates(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """The maps after the stages `indices`, NCHW, in that order."""
        maps = self.model.forward_intermediates(x, list(indices), intermediates_only=True)
        order = sorted(indices)
        return [maps[order.index(index)] for index in indices]

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> the last map, [B, num_features, ...]."""
        y: Tensor = self.model.forward_features(x)
        return y

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map -> logits; pooled features with `pre_logits`."""
        y: Tensor = self.model.forward_head(x, pre_logits=pre_logits)
        return y

    def get_classifier(self) -> nn.Module:
        """The head; identity without classes."""
        head: nn.Module = self.model.get_classifier()
        return head

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new head on; 0 takes it off."""
        self.model.reset_classifier(num_classes)
        self._remember(num_classes)

    def checkpoint_filter(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put timm's keys under `model.`; keys of this class pass unchanged."""
        return {k if k.startswith("model.") else f"model.{k}": v for k, v in state.items()}

    def prune_intermediate_layers(self, indices: Sequence[int]) -> None:
        """Drop what follows the last of `indices`."""
        self.model.prune_intermediate_layers(list(indices))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Timm's network has none.

        Raises:
            NotImplementedError: it is to be turned on.
        """
        if enable:
            raise NotImplementedError("inception_resnet_v2_slim has no gradient checkpointing.")

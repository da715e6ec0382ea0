"""What plain vision Transformers share: patches to tokens, and maps back from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saccade.models._classifier import Classifier


class PatchStem(nn.Module):
    """Patches to tokens, the class token first, plus a learned position encoding.

    Args:
        in_chans, dim: channels of the image and of the tokens.
        patch_size, img_size: sides of a patch and of the image; the encoding fixes the latter.
        scaled: multiply the tokens by sqrt(C) before the encoding is added.
        cls_std, pos_std: deviations of the class token and of the encoding at first.
    """

    def __init__(
        self,
        in_chans: int,
        dim: int,
        patch_size: int,
        img_size: int,
        *,
        scaled: bool = False,
        cls_std: float = 0.02,
        pos_std: float = 0.02,
    ) -> None:
        super().__init__()
        self.img_size, self.scaled = img_size, scaled
        self.proj = nn.Conv2d(in_chans, dim, patch_size, patch_size)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, (img_size // patch_size) ** 2 + 1, dim))
        nn.init.normal_(self.cls_token, std=cls_std)
        nn.init.trunc_normal_(self.pos_embed, std=pos_std)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_chans, img_size, img_size] -> [B, N, C]."""
        if x.shape[2:] != (self.img_size, self.img_size):
            raise ValueError(
                f"the image must be {self.img_size} x {self.img_size} pixels, as img_size says, "
                f"got {x.shape[2]} x {x.shape[3]}."
            )
        patches = self.proj(x).flatten(2).mT
        tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), patches], 1)
        if self.scaled:
            # their own width: a sub-net's tokens are narrower than the super-net's
            tokens = math.sqrt(tokens.shape[-1]) * tokens
        return tokens + self.pos_embed


class PatchClassifier(Classifier):
    """A classifier over tokens that `PatchStem` makes; its stages are its blocks."""

    def forward_intermediates(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """The maps after the blocks `indices`, NCHW, without the class token."""
        tokens = super().forward_intermediates(x, indices)
        side = round((tokens[0].shape[1] - 1) ** 0.5)
        return [y[:, 1:].mT.unflatten(2, (side, side)) for y in tokens]

    def no_weight_decay(self) -> set[str]:
        """The class token and the position encoding."""
        return {"stem.cls_token", "stem.pos_embed"}

"""One set of weights for every architecture of a space."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from saccade.compress.search.space import Architecture, SearchSpace
from saccade.models import create_model
from saccade.models.mixformer import ATTENTION, REACH, MixFormer, Relative

# Models without weights that are kept; each has a few hundred kB.
KEPT = 256


class SuperNet(nn.Module):
    """The largest model of a space, with every kind of attention in every layer.

    A sub-net has no weights of its own: it runs on the leading rows and columns of these, and on
    the leading layers. Query, key and value are sliced apart; the kinds of attention share nothing.

    Args:
        space: what may be searched.
        num_classes, in_chans: of the model.
        fused_slice: slice query, key and value as the one matrix that they are stored in, as the
            published code does: a small sub-net's keys then are rows of the large one's queries.
        options: further options of the model, `causal` or `eps` say.

    Shape:
        [B, in_chans, H, W] -> [B, num_classes].
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        num_classes: int = 10,
        in_chans: int = 3,
        fused_slice: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.space, self.fused_slice = space, fused_slice
        self.model_options = {"num_classes": num_classes, "in_chans": in_chans, **options}
        largest = space.config(space.largest(), **self.model_options)
        whole = MixFormer(largest)
        self.stem, self.norm, self.head = whole.stem, whole.norm, whole.head
        self.layers = nn.ModuleList()
        for block, heads in zip(whole.features, largest.heads, strict=True):
            kinds = {kind: ATTENTION[kind](largest.dim, heads, largest) for kind in space.attention}
            for attention in kinds.values():
                attention.apply(whole._init)
                if isinstance(attention, Relative):
                    # as published: of d columns the first head_dim are used
                    attention.keys = nn.Parameter(torch.empty(2 * REACH + 1, largest.dim))
                    nn.init.xavier_uniform_(attention.keys)
            layer: Any = block
            layer.attn = nn.ModuleDict(kinds)
            self.layers.append(layer)
        self.arch = space.largest()
        self._models: OrderedDict[Architecture, MixFormer] = OrderedDict()

    def activate(self, arch: Architecture) -> SuperNet:
        """Choose the sub-net that `forward` runs without an argument."""
        self.space.options(arch)
        self.arch = arch
        return self

    def forward(self, x: Tensor, arch: Architecture | None = None) -> Tensor:
        """Logits of a sub-net, default the active one; gradients reach the slices it uses."""
        arch = arch or self.arch
        model = self._without_weights(arch).train(self.training)
        logits: Tensor = functional_call(model, self.weights(arch), (x,), strict=True)
        return logits

    def weights(self, arch: Architecture) -> dict[str, Tensor]:
        """The state of a sub-net, as slices of this one's parameters."""
        own = dict(self.named_parameters())
        sliced = {}
        for key, parameter in self._without_weights(arch).named_parameters():
            source = own[self._source(key, arch)]
            sliced[key] = _slice(source, parameter.shape, ".qkv." in key and not self.fused_slice)
        return sliced

    def extract(self, arch: Architecture) -> MixFormer:
        """A sub-net as a model on its own, with a copy of its weights.

        It is saved and loaded like any model that `create_model` makes.
        """
        model = create_model("mixformer_max", **self.space.options(arch), **self.model_options)
        if not isinstance(model, MixFormer):
            raise TypeError(f"mixformer_max must be a MixFormer, got {type(model).__name__}.")
        like = next(self.parameters())
        state = {key: value.detach().clone() for key, value in self.weights(arch).items()}
        model = model.to(like.device, like.dtype).train(self.training)
        model.load_state_dict(state)
        return model

    def no_weight_decay(self) -> set[str]:
        """The class token and the position encoding."""
        return {"stem.cls_token", "stem.pos_embed"}

    def _without_weights(self, arch: Architecture) -> MixFormer:
        """The sub-net's modules, whose parameters hold shapes alone."""
        model = self._models.get(arch)
        if model is None:
            with torch.device("meta"):
                model = MixFormer(self.space.config(arch, **self.model_options))
            self._models[arch] = model
            if len(self._models) > KEPT:
                self._models.popitem(last=False)
        return model

    def _source(self, key: str, arch: Architecture) -> str:
        """The parameter here that a sub-net's parameter is a slice of."""
        if not key.startswith("features."):
            return key
        _, layer, rest = key.split(".", 2)
        if rest.startswith("attn."):
            rest = rest.replace("attn.", f"attn.{arch.attention[int(layer)]}.", 1)
        return f"layers.{layer}.{rest}"


def _slice(source: Tensor, shape: torch.Size, thirds: bool) -> Tensor:
    """The leading part of that shape; with `thirds`, of every third of the first axis."""
    if thirds:
        rows = shape[0] // 3
        parts = source.unflatten(0, (3, -1))[:, :rows]
        y: Tensor = parts[(..., *(slice(n) for n in shape[1:]))].flatten(0, 1)
        return y
    leading: Tensor = source[tuple(slice(n) for n in shape)]
    return leading

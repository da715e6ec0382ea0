"""The layers are the operators with fixed rings."""

from __future__ import annotations

import torch

from saccade import nn, ops


def test_layer_is_the_operator() -> None:
    image, fixation = torch.randn(2, 3, 20, 24), torch.rand(2, 4, 2) * 20
    layer = nn.LogPolar((5, 8), r_min=0.5, r_max=9.0, radial="linear", antialias="none",
                        padding_mode="border", layout="tr")  # fmt: skip
    expected = ops.logpolar_sample(
        image, fixation, out_size=(5, 8), r_min=0.5, r_max=9.0, radial="linear", antialias="none",
        padding_mode="border", layout="tr", theta0=0.3, scale=1.2,
    )  # fmt: skip
    assert torch.equal(layer(image, fixation, 0.3, 1.2), expected)
    one = layer(image, fixation[:, 0], torch.full((2,), 0.3), torch.full((2,), 1.2))
    assert torch.equal(one, expected[:, 0])


def test_the_centre_is_the_default() -> None:
    image = torch.randn(2, 1, 9, 12).half()
    center = torch.tensor([5.5, 4.0]).expand(2, 1, 2)
    expected = ops.logpolar_sample(image, center, out_size=4)[:, 0]
    assert torch.equal(nn.LogPolar(4)(image), expected)
    normalized = nn.LogPolar(4, r_min=0.1, r_max=1.0, units="normalized")
    zero = torch.zeros(2, 1, 2)
    expected = ops.logpolar_sample(
        image, zero, out_size=4, r_min=0.1, r_max=1.0, units="normalized"
    )
    assert torch.equal(normalized(image), expected[:, 0])


def test_inverse_layer_is_the_operator() -> None:
    view, fixation = torch.randn(2, 3, 4, 5, 8), torch.rand(2, 3, 2) * 12
    kwargs = {"r_min": 0.5, "r_max": 6.0, "fill": 2.0}
    for blend in ("mean", "none"):
        layer = nn.LogPolarInverse((12, 14), blend=blend, **kwargs)
        expected = ops.logpolar_inverse(view, fixation, (12, 14), blend=blend, **kwargs)
        assert torch.equal(layer(view, fixation), expected)
        one = layer(view[:, 0], fixation[:, 0])
        expected = ops.logpolar_inverse(view[:, :1], fixation[:, :1], (12, 14), **kwargs)
        assert torch.equal(one, expected)
    middle = layer(view[:, 0])
    center = torch.tensor([6.5, 5.5]).expand(2, 2)
    assert torch.equal(middle, layer(view[:, 0], center))


def test_a_table_is_part_of_the_state() -> None:
    layer = nn.LogPolar((3, 8), radial=torch.tensor([0.5, 1.0, 3.0]))
    assert set(layer.state_dict()) == {"radii"}
    other = nn.LogPolar((3, 8), radial=torch.zeros(3))
    other.load_state_dict(layer.state_dict())
    image = torch.randn(1, 1, 9, 9)
    assert torch.equal(other(image), layer(image))
    assert not nn.LogPolar(8).state_dict()
    assert "radial=table" in repr(layer)
    assert "radial='log'" in repr(nn.LogPolarInverse(8))

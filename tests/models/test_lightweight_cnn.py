"""The lightweight network: the counts of its paper, the join, and its fully convolutional form."""

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from saccade.models import create_model
from saccade.models.lightweight_cnn import LightweightCNNConfig, as_conv, mebibytes

GRAY: dict[str, Any] = {"in_chans": 1, "img_size": 28}
COLOUR: dict[str, Any] = {"in_chans": 3, "img_size": 32}


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("lightweight_cnn", GRAY, 14_862),
        ("lightweight_cnn", COLOUR, 19_622),
        ("lightweight_cnn_branch", GRAY, 6_930),
        ("lightweight_cnn_branch", COLOUR, 9_310),
        ("lightweight_cnn_dense128", GRAY, 257_546),
        ("lightweight_cnn_dense128", COLOUR, 334_706),
        ("lightweight_cnn_branch", {"variant": "dense128", **GRAY}, 128_778),
        ("lightweight_cnn_branch", {"variant": "dense128", **COLOUR}, 167_358),
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], parameters: int) -> None:
    assert count(create_model(name, **options)) == parameters


def test_counts_of_the_layers() -> None:
    model = create_model("lightweight_cnn")
    layers = [model.features[0], model.features[1], model.dense]
    assert [count(layer) for layer in layers] == [2 * 100, 2 * 1_820, 2 * 5_010]
    assert count(model.hidden, model.head) == 1_002
    assert create_model("lightweight_cnn", variant="dense128").num_features == 256


def test_the_only_round_network_of_this_size() -> None:
    found = []
    for k, valid, f1, f2, hidden, dense in itertools.product(
        (3, 5), (True, False), range(5, 41, 5), range(5, 81, 5), (16, 32, 64, 128), (True, False)
    ):
        side = 28
        for _ in range(2):
            side = (side - (k - 1 if valid else 0)) // 2
        last = f2 * side**2 if dense else f2
        sub = (k * k + 1) * f1 + (k * k * f1 + 1) * f2 + (last + 1) * 10
        if 2 * sub + 21 * hidden + (hidden + 1) * 10 == 14_862:
            found.append((k, valid, f1, f2, hidden, dense))
    assert found == [(3, True, 10, 20, 32, True)]


def test_size_in_the_abstract() -> None:
    model = create_model("lightweight_cnn")
    assert mebibytes(model) * 2**20 == 59_448
    assert mebibytes(model, slots=2) == pytest.approx(0.170, abs=5e-4)
    assert count(create_model("lightweight_cnn", **COLOUR)) < 20_000


@pytest.mark.parametrize("options", [GRAY, COLOUR, {"in_chans": 1, "img_size": 10}])
def test_maps_as_in_the_table(options: dict[str, Any]) -> None:
    model = create_model("lightweight_cnn", features_only=True, **options)
    size = options["img_size"]
    first = (size - 2) // 2
    maps = model(torch.rand(2, options["in_chans"], size, size))
    assert [tuple(m.shape) for m in maps] == [
        (2, 20, first, first),
        (2, 40, (first - 2) // 2, (first - 2) // 2),
    ]


@pytest.mark.parametrize("join", ["softmax", "logits", "dense128"])
def test_the_join_written_out(join: str) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"variant": join} if join == "dense128" else {"join": join}
    model = create_model("lightweight_cnn", **options).double().eval()
    branches = [create_model("lightweight_cnn_branch", **options).double() for _ in range(2)]
    model.load_branches(*branches)
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    said = []
    for branch in branches:
        branch.eval()
        features = branch.forward_head(branch.forward_features(x), pre_logits=True)
        said.append(features if join == "dense128" else branch(x))
    if join == "softmax":
        said = [logits.softmax(1) for logits in said]
    expected = model.head(model.hidden(torch.cat(said, 1)))
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def test_branches_must_fit() -> None:
    model = create_model("lightweight_cnn")
    narrow = create_model("lightweight_cnn_branch", widths=(4, 20))
    with pytest.raises(ValueError, match=r"conv.weight of branch 0 must have .*\[10, 1, 3, 3\], "):
        model.load_branches(narrow, narrow)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fitting = create_model("lightweight_cnn_branch")
    with pytest.raises(ValueError, match="of branch 1 must have"):
        model.load_branches(fitting, narrow)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    with pytest.raises(ValueError, match="branch 1 has no classes"):
        model.load_branches(fitting, create_model("lightweight_cnn_branch", num_classes=0))


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("lightweight_cnn", 9, "at least 10 x 10 pixels, got 9 x 9"),
        ("lightweight_cnn_dense128", 3, "at least 4 x 4 pixels, got 3 x 3"),
        ("lightweight_cnn", 20, "made for images of 28 x 28"),
    ],
)
def test_images_of_another_size_are_refused(name: str, size: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        create_model(name)(torch.zeros(1, 1, size, size))


@pytest.mark.parametrize("name", ["lightweight_cnn", "lightweight_cnn_dense128"])
@pytest.mark.parametrize("options", [GRAY, {**COLOUR, "num_classes": 4}], ids=["gray", "colour"])
def test_fully_convolutional_form(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = create_model(name, **options).eval()
    whole = model.to_fully_conv().eval()
    assert not any(isinstance(m, nn.Linear) for m in whole.modules())
    assert count(whole) == count(model)
    size = options["img_size"]
    x = torch.rand(2, options["in_chans"], size, size)
    y = whole(x)
    assert y.shape == (2, model.num_classes, 1, 1)
    torch.testing.assert_close(y.flatten(1), model(x), rtol=1e-6, atol=1e-6)
    # one more step of the two poolings is one more window
    larger = torch.rand(1, options["in_chans"], size + 4, size)
    assert whole(larger).shape[2:] == (2, 1)
    if model.cfg.valid:
        torch.testing.assert_close(
            whole(larger)[0, :, 1, 0], model(larger[:, :, 4:])[0], rtol=1e-5, atol=1e-5
        )


def test_a_dense_layer_as_a_convolution() -> None:
    linear = nn.Linear(2 * 9, 5).double()
    x = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(as_conv(linear, 2, 3)(x).flatten(1), linear(x.flatten(1)))


def test_dropout_before_the_last_layer_and_in_no_branch() -> None:
    model = create_model("lightweight_cnn")
    rates = {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout)}
    assert rates == {"drop": 0.3}
    assert create_model("lightweight_cnn_branch").drop.p == 0


MISTAKES = [
    ({"variant": "dense"}, r"variant must be one of canonical, dense128, got 'dense'"),
    ({"join": "sum"}, r"join must be one of softmax, logits, got 'sum'"),
    ({"widths": (10, 0)}, r"at least 1, got \(10, 0\)"),
    ({"hidden": 0}, r"at least 1, got .* 0 and None"),
    ({"img_size": 9}, r"img_size must be at least 10 for variant canonical, got 9"),
    ({"variant": "dense128", "img_size": 3}, r"at least 4 for variant dense128, got 3"),
    ({"drop_path_rate": 0.1}, r"drop_path_rate must be 0: .* got 0.1"),
]


@pytest.mark.parametrize(("options", "text"), MISTAKES)
def test_mistakes_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        LightweightCNNConfig(**options)


def test_other_sizes_get_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"images of 28 x 28, .* 5 x 5; got a map of 6 x 6"):
        create_model("lightweight_cnn")(torch.rand(1, 1, 32, 32))

"""CNN-SVM: parameter count, initialisation, size check, prediction."""

import pytest
import torch
from torch import nn

from saccade.models import create_model
from saccade.models.cnn_svm import CNNSVMConfig, predict


def test_parameter_count_of_the_paper() -> None:
    parts = {"features.0": 832, "features.1": 51_264, "dense": 3_212_288, "head": 10_250}
    model = create_model("cnn_svm")
    for name, wanted in parts.items():
        assert sum(p.numel() for p in model.get_submodule(name).parameters()) == wanted, name
    assert sum(p.numel() for p in model.parameters()) == sum(parts.values()) == 3_274_634


def test_initial_weights() -> None:
    torch.manual_seed(0)
    for name, p in create_model("cnn_svm").named_parameters():
        if p.dim() == 1:
            assert (p == 0.1).all(), name
        else:
            assert p.abs().max() <= 0.2, name
            # a normal of deviation 0.1 that is cut at 0.2 keeps 0.88 of it
            assert p.std().item() == pytest.approx(0.088, rel=0.1), name


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = create_model("cnn_svm")
    nn.functional.cross_entropy(model(torch.rand(3, 1, 28, 28)), torch.tensor([1, 2, 3])).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("size", [28, 33, 7])
def test_image_size_and_classes(size: int) -> None:
    model = create_model("cnn_svm", img_size=size, num_classes=4, in_chans=3).eval()
    x = torch.rand(2, 3, size, size)
    assert model(x).shape == (2, 4)
    model.reset_classifier(0)
    assert model(x).shape == (2, 1024)


def test_mistakes_get_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"images of 28 x 28, .* 7 x 7; got a map of 8 x 8"):
        create_model("cnn_svm")(torch.rand(1, 1, 32, 32))
    with pytest.raises(ValueError, match=r"drop_path_rate must be 0: .* got 0.1"):
        CNNSVMConfig(drop_path_rate=0.1)
    with pytest.raises(ValueError, match=r"at least 1, got .* 0"):
        CNNSVMConfig(img_size=0)


def test_prediction() -> None:
    scores = torch.tensor([[0.5, 2.0, -1.0], [-3.0, -2.0, -4.0], [-1.0, 0.1, 0.2]])
    assert predict(scores).tolist() == [1, 1, 2]
    assert predict(scores, sign=True).tolist() == [0, 0, 1]

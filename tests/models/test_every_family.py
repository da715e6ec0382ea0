"""One model a family is compiled and exported, and its state dict goes through safetensors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saccade.models import create_model, default_cfg, list_models, load_model, save_weights
from saccade.models._registry import _models as registered

SMALLEST = {
    "cnn_svm": "cnn_svm",
    "cvt": "cvt_micro",
    "davit": "davit_micro",
    "inception": "inception_resnet_micro",
    "karat": "karat_micro",
    "lightweight_cnn": "lightweight_cnn",
    "mamba_pkd": "mamba_pkd_micro_s5",
    "max_former": "max_former_micro",
    "max_resnet": "max_resnet_micro",
    "medvitv2": "medvitv2_micro",
    "mixformer": "mixformer_micro",
}


@pytest.fixture(params=SMALLEST)
def family(request: Any) -> str:
    return request.param


@pytest.fixture(autouse=True)
def no_graphs_of_other_models() -> None:
    # all models share one forward, whose recompilations torch counts
    torch._dynamo.reset()


def model_of(family: str) -> nn.Module:
    torch.manual_seed(0)
    return create_model(SMALLEST[family], num_classes=4).eval()


def images_of(family: str, count: int) -> Tensor:
    size = default_cfg(SMALLEST[family]).input_size
    return torch.rand(count, *size, generator=torch.Generator().manual_seed(count))


def test_no_family_is_missing() -> None:
    names = list_models(exclude_filters="*_test_model")
    assert {registered[name].module for name in names} == set(SMALLEST)


def test_one_graph_forwards_and_backwards(family: str) -> None:
    eager, images = model_of(family), images_of(family, 3)
    compiled = model_of(family)
    outputs = [
        eager(images),
        torch.compile(compiled, backend="aot_eager", fullgraph=True)(images),
    ]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)
    for logits in outputs:
        logits.square().sum().backward()
    for (name, p), q in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        if p.grad is None:
            assert q.grad is None, name
        else:
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_an_export_takes_any_batch(family: str) -> None:
    model = model_of(family)
    program = torch.export.export(
        model, (images_of(family, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    for count in (2, 5):
        images = images_of(family, count)
        torch.testing.assert_close(program.module()(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("made", "wanted"), [(5, 3), (0, 7), (7, 0)])
def test_a_model_with_a_new_head_comes_back(
    family: str, tmp_path: Path, made: int, wanted: int
) -> None:
    model = create_model(SMALLEST[family], num_classes=made).eval()
    model.reset_classifier(wanted)
    images = images_of(family, 2)
    again = load_model(save_weights(model, tmp_path)).eval()
    assert torch.equal(again(images), model(images))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x[0], r"images must have shape \[B, \d, H, W\], got \("),
        (lambda x: torch.cat([x, x], 1), r"images must have shape \[B, \d, H, W\], got \(2, "),
        (lambda x: x[None, None], r"images must have shape \[B, \d, H, W\], got \(1, 1, 2, "),
    ],
    ids=["no batch", "channels", "axes"],
)
def test_what_is_no_batch_of_images_is_refused(family: str, change: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        model_of(family)(change(images_of(family, 2)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"in_chans": 0}, "in_chans must be at least 1, got 0"),
        # the spiking networks have no such option
        ({"drop_path_rate": 1.5}, "drop_path_rate must be .* got 1.5|no option 'drop_path_rate'"),
    ],
    ids=["channels", "drop path"],
)
def test_options_out_of_range_are_refused(
    family: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        create_model(SMALLEST[family], **options)


def test_weights_come_back_with_the_same_bits(family: str, tmp_path: Path) -> None:
    model, images = model_of(family), images_of(family, 2)
    again = load_model(save_weights(model, tmp_path)).eval()
    assert again.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(again(images), model(images))

"""The configuration: defaults, file, command line, and a sentence for every mistake."""

import pytest

from saccade.learn import TrainConfig


def test_command_line_overrides_file_overrides_defaults(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("epochs: 3\nlr: 1e-4\nmodel_kwargs: {ffn: mlp, dilation: none}\ndevices: 2\n")
    config = TrainConfig.load(
        file, {"epochs": 5, "min_lr": 0}, ["model_kwargs.dilation=dinat", "seed=7"]
    )
    assert (config.epochs, config.lr, config.seed, config.devices) == (5, 1e-4, 7, "2")
    assert config.model_kwargs == {"ffn": "mlp", "dilation": "dinat"}
    assert config.batch_size == TrainConfig().batch_size


def test_text_reads_back_as_the_same_configuration(tmp_path):
    config = TrainConfig(
        lr=3e-4, model_kwargs={"depths": [1, 2]}, img_size=48, out="a b/c", mixup=0.2
    )
    (tmp_path / "config.yaml").write_text(config.text())
    assert TrainConfig.load(tmp_path / "config.yaml") == config


def test_sets_reach_into_nested_mappings():
    config = TrainConfig.load(sets=["model_kwargs.a.b=1", "model_kwargs.a.c=[x, 2]", "quiet=true"])
    assert config.model_kwargs == {"a": {"b": 1, "c": ["x", 2]}}
    assert config.quiet is True


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ({}, "runs/medvitv2_micro-digits-seed0"),
        (
            {"data": "folder:/tmp/My cats", "seed": 4},
            "runs/medvitv2_micro-folder--tmp-My-cats-seed4",
        ),
        ({"out": "x/y"}, "x/y"),
    ],
    ids=["default", "folder", "out"],
)
def test_run_folder(given, folder):
    assert TrainConfig(**given).folder.as_posix() == folder


VALUES = [
    ({"epochs": 0}, "epochs must be at least 1; got 0"),
    ({"batch_size": -4}, "batch_size must be at least 1; got -4"),
    ({"img_size": 0}, "img_size must be at least 1; got 0"),
    ({"train_size": 0}, "train_size must be at least 1; got 0"),
    ({"epochs": "ten"}, "epochs must be a whole number; got 'ten'"),
    ({"epochs": 2.5}, "epochs must be a whole number; got 2.5"),
    ({"epochs": True}, "epochs must be a whole number; got True"),
    ({"lr": "fast"}, "lr must be a number; got 'fast'"),
    ({"lr": 0}, "lr must be above 0 and not below min_lr; got lr 0, min_lr 1e-05"),
    ({"lr": 1e-6}, "not below min_lr; got lr 1e-06, min_lr 1e-05"),
    ({"weight_decay": -0.1}, "weight_decay must be at least 0; got -0.1"),
    ({"mixup": -1}, "mixup must be at least 0"),
    ({"seed": -1}, "seed must be at least 0; got -1"),
    ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\); got 1.0"),
    ({"momentum": 1.5}, r"momentum must be in \[0, 1\); got 1.5"),
    ({"warmup_epochs": 11}, "warmup_epochs must be at most epochs, 10; got 11"),
    ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\); got 1.0"),
    ({"lr_decay": 0.0}, r"lr_decay must be in \(0, 1\] .* got 0 and 2"),
    ({"svm_c": -1.0}, "svm_c must be at least 0; got -1.0"),
    ({"optimizer": "lion"}, "optimizer must be one of adamw, adam, sgd, rmsprop; got 'lion'"),
    ({"schedule": "step"}, "schedule must be one of cosine, exponential, constant; got 'step'"),
    ({"loss": "mse"}, "loss must be one of ce, bce, svm, svm_l1; got 'mse'"),
    ({"augment": "heavy"}, "augment must be one of none, light, crop, medvitv2; got 'heavy'"),
    ({"rand_magnitude": 31}, r"rand_magnitude must be in \[0, 30\]; got 31"),
    ({"erase": -0.1}, r"erase must be in \[0, 1\]; got -0.1"),
    ({"normalize": "no"}, "normalize must be one of data, half, none; got 'no'"),
    ({"deterministic": "yes"}, "deterministic must be true or false; got 'yes'"),
    ({"model": None}, "model must be a string; got None"),
    ({"model_kwargs": "kan"}, "model_kwargs must be a mapping of names to values; got 'kan'"),
]


@pytest.mark.parametrize(
    ("given", "sentence"), VALUES, ids=[f"{k}={v}" for row in VALUES for k, v in row[0].items()]
)
def test_values_out_of_range(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainConfig(**given)


SETS = [
    ("epoch=3", "unknown option 'epoch' in the configuration: did you mean epochs"),
    ("zzz=3", "unknown option 'zzz' in the configuration: the options are model, "),
    (
        "epochs",
        "--set takes name=value, for example --set model_kwargs.dilation=none; got 'epochs'",
    ),
    ("model_kwargs.=1", "--set takes name=value"),
    ("epochs.more=1", "--set epochs.more names a part of epochs, which has none"),
]


@pytest.mark.parametrize(("assignment", "sentence"), SETS, ids=[row[0] for row in SETS])
def test_malformed_sets(assignment, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainConfig.load(sets=[assignment])


FILES = [
    ("leraning_rate: 1", "unknown option 'leraning_rate'"),
    ("batchsize: 8", "did you mean batch_size"),
    ("[1, 2]", "must hold keys and values, like 'epochs: 10'; it holds list"),
    ("a: [1", "is not YAML: "),
    ("!!python/object/apply:os.getcwd []", "is not YAML: "),
]


@pytest.mark.parametrize(("text", "sentence"), FILES, ids=[row[0] for row in FILES])
def test_malformed_files(tmp_path, text, sentence):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ValueError, match=sentence) as caught:
        TrainConfig.load(tmp_path / "run.yaml")
    assert "\n" not in str(caught.value)


def test_absent_file(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"the configuration file .*none\.yaml does not exist"
    ):
        TrainConfig.load(tmp_path / "none.yaml")


def test_empty_file_means_defaults(tmp_path):
    (tmp_path / "run.yaml").write_text("# nothing\n")
    assert TrainConfig.load(tmp_path / "run.yaml") == TrainConfig()

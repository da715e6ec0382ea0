"""The command line: exit codes, sentences instead of tracebacks, help that names every option."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from saccade.cli import main, sentence
from saccade.learn import TrainConfig

TINY = [
    "--train-size",
    "16",
    "--val-size",
    "10",
    "--test-size",
    "10",
    "--img-size",
    "24",
    "--epochs",
    "1",
    "--batch-size",
    "8",
]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("SACCADE_DATA", raising=False)
    monkeypatch.delenv("SACCADE_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def test_info_is_text_or_json(capsys):
    assert main(["info"]) == 0
    assert "torch" in capsys.readouterr().out
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["torch"] == torch.__version__


MISTAKES = [
    (["train", "--data", "mnist"], "mnist needs a data directory: pass --data-dir"),
    (["train", "--data", "digit"], "Did you mean 'digits'"),
    (["train", "--model", "medvit"], "there is no model 'medvit'"),
    (["train", "--set", "epoch=3"], "did you mean epochs"),
    (["train", "--config", "absent.yaml"], "the configuration file absent.yaml does not exist"),
    (["train", "--epochs", "0"], "epochs must be at least 1; got 0"),
    (["train", "--set", "model_kwargs.dilatoin=none"], "has no option 'dilatoin'"),
    (["train", "--strategy", "dp9"], "Lightning cannot run with accelerator auto, devices 1"),
    (["list", "papers"], "list takes models, systems or data; got 'papers'"),
    (["list", "models", "resnet*"], "no model's name matches 'resnet*'"),
    (["reproduce", "medvit"], "there is no system 'medvit': did you mean medvitv2 or davit?"),
    (
        ["reproduce", "medvitv2", "--scale", "large"],
        "scale of medvitv2 must be small or paper; got 'large'",
    ),
    (["reproduce", "medvitv2", "--seeds", "0"], "seeds must be at least 1; got 0"),
    (["reproduce", "medvitv2", "--jobs", "0"], "jobs must be at least 1; got 0"),
    (["export", "medvitv2_micro", "--out", "model.onnx"], "--out must end in .pt2; got model.onnx"),
    (["export", "nothing"], "nothing is neither a run folder"),
]


@pytest.mark.parametrize(
    ("arguments", "expected"), MISTAKES, ids=[" ".join(row[0]) for row in MISTAKES]
)
def test_a_mistake_gives_one_sentence_and_exit_code_2(
    arguments, expected, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.startswith("saccade: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["train", "--epoch", "3"], ["fly"], ["train", "--epochs", "many"]], ids=" ".join
)
def test_malformed_command_lines_exit_with_2(arguments, capsys):
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("SACCADE_DEBUG", "1")
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        main(["train", "--epochs", "0"])


def test_bugs_keep_their_traceback(monkeypatch):
    def broken(arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr("saccade.cli._app.run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["train"])


def test_train_help_names_every_option(capsys):
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(TrainConfig):
        if field.name != "model_kwargs":
            assert "--" + field.name.replace("_", "-") in text, field.name
    assert "--config" in text
    assert "--set" in text
    assert "(default: 64)" in text


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("info", "list", "train", "reproduce", "bench", "export"):
        assert command in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["list"], "medvitv2_tiny"),
        (["list", "models", "*_base"], "medvitv2_base"),
        (["list", "systems"], "neighborhood_attention, kan"),
        (["list", "data"], "folder:PATH"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_list(arguments, expected, capsys):
    assert main(arguments) == 0
    assert expected in capsys.readouterr().out


def test_train_ends_with_accuracy_and_paths_and_the_checkpoint_exports(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", *TINY, "--out", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("training medvitv2_micro on digits: 1 epochs")
    assert lines[1].startswith("epoch   1/1")
    assert lines[2].startswith("test accuracy ")
    for line, name in zip(lines[3:], ("figure.png", "model.safetensors", "report.md"), strict=True):
        assert line.endswith(str(run / name))
        assert (run / name).is_file()
    out = tmp_path / "model.pt2"
    assert main(["export", str(run), "--out", str(out)]) == 0
    assert "input [batch, 3, 24, 24]" in capsys.readouterr().out
    from saccade.models import load_model

    images = torch.rand(3, 3, 24, 24)
    program = torch.export.load(out).module()
    with torch.no_grad():
        torch.testing.assert_close(program(images), load_model(run).eval()(images))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("one\n  two", "one two"),
        ("", "ValueError"),
        (
            'Caught ValueError in DataLoader worker process 0.\nOriginal Traceback:\n  File "x"\n'
            "ValueError: cannot read a.png: broken",
            "cannot read a.png: broken",
        ),
    ],
    ids=["lines", "empty", "worker"],
)
def test_sentence(message, expected):
    assert sentence(ValueError(message)) == expected


def test_info_needs_the_core_alone_and_the_rest_names_its_extra():
    code = (
        "import sys\n"
        "for name in ('typer', 'rich', 'lightning', 'torchvision', 'sklearn', 'yaml'):\n"
        "    sys.modules[name] = None\n"
        "from saccade.cli import main\n"
        "assert main(['info']) == 0\n"
        "sys.exit(main(['train']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith("saccade ")
    assert 'pip install "saccade[train]"' in done.stderr
    assert done.stderr.count("\n") == 1

"""The typer application behind `saccade`."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from saccade._extras import require

typer = require("typer", extra="train", purpose="every command but `saccade info`")

HELP = """Compiled operators for vision research, and the models and training algorithms that stand
on them."""


def run(arguments: Sequence[str]) -> int:
    """Run the application and give its exit code."""
    try:
        build()(list(arguments), prog_name="saccade")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def build() -> Any:
    """The application with all its commands."""
    app = typer.Typer(
        help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    app.command("info", help="Show versions, instruction sets, libraries and devices.")(_info)
    app.command("list", help="List models, systems (papers) or data sets.")(_list)
    app.command("train", help=TRAIN_HELP)(_train_command())
    app.command("reproduce", help=REPRODUCE_HELP)(_reproduce)
    app.command("bench")(_bench_command())
    app.command(
        "export", help="Export a model, with its weights, as a torch.export program (.pt2)."
    )(_export)
    return app


def _info(
    json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    from saccade.cli import info

    info(["--json"] if json else [])


def _list(
    what: Annotated[str, typer.Argument(help="models, systems or data.")] = "models",
    filter: Annotated[
        str, typer.Argument(help="Names of models to show, with wildcards: '*kan*'.")
    ] = "",
) -> None:
    from saccade.cli._listing import show

    show(what, filter)


TRAIN_HELP = """Train a model and test it once.

Ends with the test accuracy, and the paths of picture, checkpoint and report.

Options on the command line override those of --config; every option is a key of that file.
"""


def _train_command() -> Any:
    """The train command: one option for each field of TrainConfig."""
    from saccade.learn.config import TrainConfig

    hints = typing.get_type_hints(TrainConfig)
    parameters = [
        _parameter("config", Path, "--config", "YAML file of options.", "Run"),
        _parameter(
            "set",
            list[str],
            "--set",
            "Any option as name=value, parts too: model_kwargs.dilation=none.",
            "Run",
        ),
    ]
    for item in dataclasses.fields(TrainConfig):
        kind = next(
            t for t in (*typing.get_args(hints[item.name]), hints[item.name]) if t is not type(None)
        )
        if item.name == "model_kwargs":
            continue
        flag = "--" + item.name.replace("_", "-")
        if kind is bool:
            flag = f"{flag}/--no-{flag[2:]}"
        text = item.metadata["help"]
        if item.default is not None and kind is not bool:
            text += f" (default: {item.default})"
        parameters.append(_parameter(item.name, kind, flag, text, item.metadata["panel"]))

    def train(**given: Any) -> None:
        from saccade.cli._train import train as start

        file, sets = given.pop("config"), given.pop("set") or []
        start(
            TrainConfig.load(
                file, {name: value for name, value in given.items() if value is not None}, sets
            )
        )

    train.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return train


def _parameter(name: str, kind: Any, flag: str, text: str, panel: str) -> inspect.Parameter:
    option = typer.Option(flag, help=text, rich_help_panel=panel, show_default=False)
    # None means "not given", so that the file's value or the default stands.
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


REPRODUCE_HELP = """Reproduce a paper's effect: every arm over several seeds.

Writes result.json, figure.png and report.md to OUT/NAME.

The exit code is 0 whether or not the claim holds; result.json says which.
"""


def _reproduce(
    name: Annotated[str, typer.Argument(help="A system; see `saccade list systems`.")],
    scale: Annotated[str, typer.Option(help="small (minutes on a CPU) or paper.")] = "small",
    data: Annotated[
        str | None, typer.Option(help="Data set (default: the system's own choice).")
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="Directory of the data set (default: $SACCADE_DATA).")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds: 0 to n - 1.")] = 3,
    out: Annotated[Path, typer.Option(help="Directory of the results.")] = Path("runs"),
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Processes that share seeds, arms and torch's threads (default: one a thread; "
            "1 with a GPU or at the paper's scale)."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result alone.")] = False,
) -> None:
    import torch

    from saccade.systems import get_system
    from saccade.systems._protocol import reproduce

    if jobs is None:
        shared = scale == "paper" or torch.cuda.is_available()
        jobs = 1 if shared else torch.get_num_threads()

    result = reproduce(
        get_system(name),
        scale=scale,
        data=data,
        data_dir=data_dir,
        seeds=seeds,
        out=out,
        jobs=jobs,
        quiet=quiet,
    )
    print(result.summary())


def _bench_command() -> Any:
    try:
        from saccade.cli import bench
    except ImportError as error:
        reason = str(error)

        def absent() -> None:
            """Measure an operator against its peers (not available here)."""
            raise ImportError(
                f'saccade bench cannot start ({reason}): pip install "saccade[bench]"'
            )

        return absent
    return bench.bench


def _export(
    source: Annotated[
        str,
        typer.Argument(
            help="A run folder, a .safetensors file with config.json beside it, or a model's name."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("model.pt2"),
    img_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the input in pixels (default: the checkpoint's, else the model's)."
        ),
    ] = None,
) -> None:
    from saccade.cli._export import export

    path, shape = export(source, out, img_size)
    print(
        f"exported {source} to {path}: input [batch, {', '.join(map(str, shape))}], any batch",
        file=sys.stdout,
    )

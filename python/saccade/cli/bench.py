"""`saccade bench`: an operator against its peers, its floor and its targets, or the models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from saccade._extras import require

typer = require("typer", extra="bench", purpose="saccade bench")


def _names(text: str | None) -> tuple[str, ...] | None:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def bench(
    operator: Annotated[
        str,
        typer.Argument(help="The operator, for example neighborhood_attention, or models."),
    ],
    peers: Annotated[
        str | None, typer.Option(help="Comma-separated peers, or none. Default: all.")
    ] = None,
    cases: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated cases, or all. Default: those with targets. For models: names of "
            "models, default one of every family."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    backend: Annotated[
        str, typer.Option(help="Ours: auto, cpu, cuda, triton or reference.")
    ] = "auto",
    threads: Annotated[int, typer.Option(help="Threads, for ours and the peers.")] = 2,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few rounds and the cheap peers: half a minute.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 when a target is missed.")
    ] = False,
    memory: Annotated[
        bool, typer.Option(help="Measure the peak memory of a training step.")
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing while measuring.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write everything to this JSON file.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the medians to this PNG, SVG or PDF file.")
    ] = None,
) -> None:
    """Measure an operator against other ways to compute it, in one process and one run.

    Results are checked against the float64 reference before anything is timed. `saccade bench
    models` measures the models against timm's or against plain torch operations.
    """
    if operator == "models":
        given: dict[str, object] = {"--peers": peers, "--plot": plot, "--check": check or None}
        given |= {"--dtype": None if dtype == "float32" else dtype}
        given |= {"--backend": None if backend == "auto" else backend}
        _models(_names(cases), device, threads, quick, memory, quiet, json, given)
        return
    from saccade.bench import load
    from saccade.bench._gate import GateError
    from saccade.bench._machine import reexecute_with_malloc_settings
    from saccade.bench._plot import save_plot
    from saccade.bench._report import print_report, save_json
    from saccade.bench._run import Options, run

    if plot:
        require("matplotlib", extra="bench", purpose="saccade bench --plot")
    options = Options(_names(cases), _names(peers), device, dtype, backend, threads, quick, memory)
    try:
        suite = load(operator)
        options.check(suite)
        reexecute_with_malloc_settings()
        report = run(suite, options, (lambda line: None) if quiet else _say)
    except (ValueError, GateError) as error:
        _say(f"saccade bench: {error}")
        raise typer.Exit(2 if isinstance(error, ValueError) else 1) from error
    print_report(report)
    if json:
        save_json(report, json)
        print(f"wrote {json}")
    if plot:
        save_plot(report, plot)
        print(f"wrote {plot}")
    if check and not report.targets:
        _say("saccade bench: --check has nothing to check, no target applies to what was measured")
        raise typer.Exit(2)
    if check and not report.met:
        raise typer.Exit(1)


def _models(
    names: tuple[str, ...] | None,
    device: str,
    threads: int,
    quick: bool,
    memory: bool,
    quiet: bool,
    json: Path | None,
    given: dict[str, object],
) -> None:
    from saccade.bench._machine import reexecute_with_malloc_settings
    from saccade.bench._models import Options, print_models, run_models, save_json

    unknown = [option for option, value in given.items() if value is not None]
    if unknown:
        _say(f"saccade bench: models does not take {', '.join(unknown)}")
        raise typer.Exit(2)
    try:
        options = Options(names, device, threads, quick, memory)
        options.check()
        reexecute_with_malloc_settings()
        report = run_models(options, (lambda line: None) if quiet else _say)
    except ValueError as error:
        _say(f"saccade bench: {error}")
        raise typer.Exit(2) from error
    print_models(report)
    if json:
        save_json(report, json)
        print(f"wrote {json}")

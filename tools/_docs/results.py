"""The benchmark results that are kept, as tables and sentences."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _docs.docstrings import table

Result = dict[str, Any]


def load(folder: Path) -> list[Result]:
    """The newest result of each operator, device, dtype and rung, in that order."""
    newest: dict[tuple[str, ...], Result] = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        if "operator" not in result:
            continue
        facts = result["environment"]
        key = (result["operator"], device(result), result["dtype"], facts["rung"])
        if key not in newest or facts["date"] > newest[key]["environment"]["date"]:
            newest[key] = {**result, "file": path.name}
    return [newest[key] for key in sorted(newest)]


def device(result: Result) -> str:
    """The processor or the GPU by name."""
    facts = result["environment"]
    return str(facts["cpu"] if facts["device"] == "cpu" else facts["device"])


def on_gpu(result: Result) -> bool:
    """Whether the result was measured on a GPU."""
    return bool(result["environment"]["device"] != "cpu")


def where(result: Result) -> str:
    """The rung, machine, versions and date of a result, in one sentence."""
    rung = result["environment"]["rung"].rpartition(": ")[2]
    return f"Rung `{rung}`, {machine(result)}."


def milliseconds(value: float) -> str:
    """Three digits or so."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def title(result: Result, name: str) -> str:
    """A case by its shape and arguments."""
    (case,) = (case for case in result["cases"] if case["name"] == name)
    arguments = ", ".join(f"{key}={value}" for key, value in case["arguments"].items())
    shape = next(iter(case["shapes"].values()))
    return f"{shape}, {arguments}" if arguments else f"{shape}"


def groups(result: Result) -> dict[tuple[str, str], list[Result]]:
    """The rows of each case and pass."""
    found: dict[tuple[str, str], list[Result]] = {}
    for row in result["results"]:
        found.setdefault((row["case"], row["pass"]), []).append(row)
    return found


def brief(kept: Iterable[Result]) -> str:
    """One table of all results: a line a problem, with how many times longer each peer takes."""
    rows = []
    for result in kept:
        for case in result["cases"]:
            name = case["name"]
            forward, training = (_pass(result, name, p) for p in ("forward", "forward+backward"))
            problem = f"{name}: `{title(result, name)}`"
            rows.append((f"`{result['operator']}`", problem, *forward, *training))
    header = (
        "operator", "problem", "forward, ms", "others, times longer", "and backward, ms",
        "others, times longer",
    )  # fmt: skip
    return table(header, rows, right=(2, 4))


def _pass(result: Result, case: str, phase: str) -> tuple[str, str]:
    """Our milliseconds, and the peers' ratios from the least to the largest."""
    rows = {row["peer"]: row for row in groups(result).get((case, phase), [])}
    own = rows.pop(result["ours"], None)
    if own is None:
        return "", ""
    timed = sorted((row["ratio"], name) for name, row in rows.items() if row["ratio"] is not None)
    others = ", ".join(f"{name} {ratio:.1f}" for ratio, name in timed)
    return milliseconds(own["median_ms"]), others


def bound(result: Result, case_name: str, phase: str) -> str:
    """Which of the two floors is the higher one."""
    (case,) = (case for case in result["cases"] if case["name"] == case_name)
    work, floor = case["work"][phase], result["floor"]
    compute = work["flops"] / (floor["gemm_gflop_per_s"] * 1e9)
    memory = work["bytes"] / (floor["copy_gb_per_s"] * 1e9)
    return "arithmetic" if compute >= memory else "memory traffic"


def details(result: Result) -> str:
    """Everything that a result says: medians with spread, floors, memory, targets and notes."""
    floor = result["floor"]
    lines = [
        where(result),
        "",
        "Floor: the slower of bytes over the machine's copy bandwidth "
        f"({floor['copy_gb_per_s']:.1f} GB/s) and operations over its rate of matrix products "
        f"({floor['gemm_gflop_per_s']:.0f} GFLOP/s), both measured in the same run.",
    ]
    for (case, phase), found in groups(result).items():
        least = milliseconds(found[0]["floor_ms"])
        lines += [
            "",
            f"**{case}, {phase}**: `{title(result, case)}`, floor {least} ms, set by "
            f"{bound(result, case, phase)}.",
            "",
            table(
                ("peer", "version", "median, ms", "p20 to p80, ms", "times ours", "of floor"),
                [_row(row) for row in found],
                right=(2, 3, 4, 5),
            ),
        ]
    if result["memory"]:
        lines += ["", "Peak memory of a training step:", ""]
        lines += [
            f"- {row['case']}, {row['peer']}: {row['peak_bytes'] / 1e6:.1f} MB, {row['ratio']:.2f} "
            f"times the {row['tensor_bytes'] / 1e6:.1f} MB of inputs, outputs and gradients"
            for row in result["memory"]
        ]
    if result["targets"]:
        lines += ["", "Targets, judged from this run:", ""]
        lines += [f"- {_target(target)}" for target in result["targets"]]
    if result["notes"]:
        lines += ["", *(f"- note: {note}" for note in result["notes"])]
    return "\n".join(lines)


def _row(row: Result) -> tuple[str, ...]:
    if row["median_ms"] is None:
        return (row["peer"], row["version"], row["status"], row["note"], "", "")
    return (
        row["peer"],
        row["version"],
        milliseconds(row["median_ms"]),
        f"{milliseconds(row['p20_ms'])} to {milliseconds(row['p80_ms'])}",
        f"{row['ratio']:.1f}",
        f"{100 * row['fraction']:.1f} %",
    )


def _target(target: Result) -> str:
    measured = target["measured"]
    found = "not measured" if measured is None else f"{measured:.3g}x"
    return f"{target['text']}: {found}, {'met' if target['met'] else '**missed**'}"


def load_models(folder: Path) -> list[Result]:
    """The newest result of the models on each device."""
    newest: dict[str, Result] = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        if result.get("suite") != "models":
            continue
        key = device(result)
        if key not in newest or result["environment"]["date"] > newest[key]["environment"]["date"]:
            newest[key] = {**result, "file": path.name}
    return [newest[key] for key in sorted(newest)]


def machine(result: Result) -> str:
    """The machine, versions and date of a result, the models' included."""
    facts = result["environment"]
    name = device(result)
    if not on_gpu(result):
        name += f" ({facts['isa'] or 'reference only'}, {facts['threads']} threads)"
    return (
        f"{name}, {result.get('dtype', 'float32')}, saccade {facts['saccade']}, "
        f"torch {facts['torch']}, {facts['date'][:10]}"
    )


def models(result: Result) -> str:
    """Forward and training step of every model, and what the peer takes."""
    lines = [f"{machine(result)}.", ""]
    rows = []
    for case in result["cases"]:
        for phase in ("forward", "forward+backward"):
            found = {
                row["peer"]: row
                for row in result["results"]
                if (row["model"], row["pass"]) == (case["model"], phase)
            }
            own = found.pop(result["ours"])
            peer = next(iter(found.values()), None)
            rows.append(_model_row(case, phase, own, peer))
    header = (
        "model", "parameters", "input", "operators", "pass", "saccade, ms", "peer", "peer, ms",
        "times ours", "peak, MB", "peer's, MB",
    )  # fmt: skip
    lines.append(table(header, rows, right=(1, 5, 7, 8, 9, 10)))
    absent = [row for row in result["results"] if row["status"] != "ok"]
    notes = [
        f"{row['model']}, {row['pass']}, {row['peer']}: {row['status']}, {row['note']}"
        for row in absent
    ] + result["notes"]
    if notes:
        lines += ["", *(f"- note: {note}" for note in notes)]
    return "\n".join(lines)


def gains(result: Result) -> str:
    """How many times longer the peers of the models take, in a table of one row a model."""
    rows = []
    for case in result["cases"]:
        ratios = [
            next((row for row in result["results"] if _is_peer(row, result, case, phase)), None)
            for phase in ("forward", "forward+backward")
        ]
        if None in ratios:
            continue
        rows.append(
            (
                f"`{case['model']}`",
                " x ".join(map(str, case["input"])),
                ", ".join(f"`{word}`" for word in case["operators"]) or "-",
                ratios[0]["peer"] + (f" ({case['note']})" if case["note"] else ""),
                *(f"{row['ratio']:.2f}x" if row["ratio"] else "-" for row in ratios),
            )
        )
    header = ("model", "input", "operators", "peer", "forward", "training step")
    return table(header, rows, right=(4, 5))


def _is_peer(row: Result, result: Result, case: Result, phase: str) -> bool:
    return (row["model"], row["pass"]) == (case["model"], phase) and row["peer"] != result["ours"]


def _model_row(case: Result, phase: str, own: Result, peer: Result | None) -> tuple[str, ...]:
    def megabytes(row: Result | None) -> str:
        peak = row and row["peak_bytes"]
        return "" if peak is None else f"{peak / 1e6:.0f}"

    timed = peer is not None and peer["median_ms"] is not None
    name = "torch itself"
    if peer is not None:
        named = peer["version"].startswith(peer["peer"])
        name = peer["version"] if named else f"{peer['peer']} ({peer['version']})"
    return (
        f"`{case['model']}`",
        f"{case['parameters']:,}",
        " x ".join(map(str, case["input"])),
        ", ".join(f"`{word}`" for word in case["operators"]) or "-",
        phase,
        milliseconds(own["median_ms"]),
        f"{name}, {case['note']}" if case["note"] else name,
        milliseconds(peer["median_ms"]) if peer and timed else "-",
        f"{peer['ratio']:.2f}x" if peer and timed else "-",
        megabytes(own),
        megabytes(peer),
    )

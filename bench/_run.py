"""Runs a suite: gate, then interleaved timing, then memory and targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saccade.bench._gate import GateError, evaluate, judge, require_grad, solve, step
from saccade.bench._harness import QUICK, Budget, Call, clock_for, interleave
from saccade.bench._machine import Floor, environment
from saccade.bench._memory import Memory, MemoryUnavailableError, Request, measure
from saccade.bench._report import Report, Row
from saccade.bench._suite import (
    FORWARD,
    TRAINING,
    Case,
    Function,
    Inputs,
    Peer,
    Suite,
    UnsupportedError,
)
from saccade.bench._targets import check_targets
from saccade.ops import explain

Say = Callable[[str], None]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Options:
    """What to run; None stands for the suite's default.

    `quick` takes few rounds and the cheap peers.
    """

    cases: tuple[str, ...] | None = None
    peers: tuple[str, ...] | None = None
    device: str = "cpu"
    dtype: str = "float32"
    backend: str = "auto"
    threads: int = 2
    quick: bool = False
    memory: bool = True
    budget: Budget = field(default_factory=Budget)

    def check(self, suite: Suite) -> None:
        """Raise ValueError for a case, peer, device, dtype or number of threads that cannot be."""
        suite.select_cases(self.cases)
        suite.select_peers(self.peers)
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu or cuda, got {self.device!r}.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device is cuda, but torch {torch.__version__} finds no CUDA device.")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}.")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}.")


@dataclass
class _Problem:
    """A case with its tensors drawn: every contestant gets these very ones."""

    case: Case
    inputs: Inputs
    cotangents: tuple[Tensor, ...]
    truth: dict[str, Inputs]
    functions: dict[str, Function] = field(default_factory=dict)

    @classmethod
    def draw(cls, case: Case, truth: Peer, device: torch.device, dtype: torch.dtype) -> _Problem:
        inputs = case.inputs(device, dtype)
        doubles = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
        function = truth.prepare(case, doubles)
        cotangents, true = solve(function, doubles, dtype, case.constants, TRAINING in case.work)
        return cls(case, inputs, cotangents, true)

    def function(self, peer: Peer) -> Function:
        """Prepare a contestant once, for both passes."""
        if peer.name not in self.functions:
            self.functions[peer.name] = peer.prepare(self.case, self.inputs)
        return self.functions[peer.name]

    def call(self, function: Function, phase: str) -> Call:
        """What is timed: the forward without a graph, or a training step on leaves."""
        if phase == TRAINING:
            leaves = require_grad(self.inputs, self.case.constants)
            return lambda: step(function, leaves, self.cotangents)
        return torch.no_grad()(lambda: function(self.inputs))


@dataclass
class _Bench:
    """One run: what every case and pass shares."""

    suite: Suite
    ours: Peer
    device: torch.device
    dtype: torch.dtype
    budget: Budget
    say: Say

    def time(self, problem: _Problem, phase: str, peers: tuple[Peer, ...]) -> list[Row]:
        """Check and time all contestants in one pass of one case."""
        label = f"{problem.case.name} {phase}"
        rows, calls = [], {}
        for peer in (self.ours, *peers):
            self.say(f"{label}: checking {peer.name}")
            row = self.admit(peer, problem, phase)
            rows.append(row)
            if row.status == "ok":
                calls[peer.name] = problem.call(problem.function(peer), phase)
        self.say(f"{label}: timing {', '.join(calls)}")
        timings = interleave(calls, clock_for(self.device), self.budget)
        for row in rows:
            row.timing = timings.get(row.peer)
        return rows

    def admit(self, peer: Peer, problem: _Problem, phase: str) -> Row:
        """Let a contestant through the gate, or note why it stays outside. Ours must pass."""
        row = Row(problem.case.name, phase, peer.name, peer.version())
        try:
            refusal = peer.refusal(problem.case, phase, self.device)
            if refusal:
                raise UnsupportedError(refusal)
            results = evaluate(
                problem.function(peer),
                problem.inputs,
                problem.cotangents,
                phase,
                problem.case.constants,
            )
        except UnsupportedError as error:
            row.status, row.note = "unsupported", str(error)
            return row
        except (
            Exception
        ) as error:  # a peer that breaks is a line of the table, not the end of the run
            if peer is self.ours:
                raise
            first = (str(error).strip().splitlines() or ["no message"])[0]
            row.status, row.note = "failed", f"{type(error).__name__}: {first}"
            return row
        allowed = self.suite.allowed_error(problem.case, self.device, self.dtype)
        verdict = judge(results, problem.truth[phase], allowed)
        row.error, row.tolerance = verdict.error, verdict.tolerance
        if not verdict.passed:
            if peer is self.ours:
                raise GateError(
                    f"{row.case} {phase}: {peer.name} is wrong, "
                    f"so nothing is reported: {verdict.text}."
                )
            row.status, row.note = "refused", verdict.text
        return row


def _measure_memory(
    rows: list[Row], suite: Suite, options: Options, only: str | None, say: Say
) -> tuple[list[Memory], list[str]]:
    """Measure every contestant that trained, each in a process of its own."""
    cases: dict[str, tuple[str, ...]] = {}
    for row in rows:
        if row.phase == TRAINING and row.timing is not None and only in (None, row.peer):
            cases[row.peer] = (*cases.get(row.peer, ()), row.case)
    found, notes = [], []
    for peer, names in cases.items():
        say(f"peak memory of a training step, {peer}")
        request = Request(
            suite.operator,
            peer,
            names,
            options.backend,
            options.device,
            options.dtype,
            options.threads,
        )
        try:
            found += measure(request)
        except MemoryUnavailableError as error:
            notes.append(f"memory of {peer}: {error}")
    return found, notes


def _rung(suite: Suite, options: Options) -> str:
    """Say which rung runs, before a forced one that cannot run costs minutes of the peers' time."""
    inputs = suite.small.inputs(torch.device(options.device), DTYPES[options.dtype])
    headline = explain(suite.operator, next(iter(inputs.values())), options.backend).splitlines()[0]
    if not headline.startswith(f"{suite.operator} runs on: "):
        raise ValueError(headline)
    return headline


def _silent(line: str) -> None:
    pass


def run(suite: Suite, options: Options, say: Say = _silent) -> Report:
    """Run a suite and return the report; `say` is told what is going on.

    Raises:
        GateError: our own results disagree with the reference.
        ValueError: a case, peer, device or dtype is unknown, or the backend cannot run.
    """
    options.check(suite)
    cases = suite.select_cases(options.cases)
    names = suite.quick_peers if options.quick and options.peers is None else options.peers
    peers = suite.select_peers(names)
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    bench = _Bench(
        suite,
        suite.ours(options.backend),
        device,
        dtype,
        QUICK if options.quick else options.budget,
        say,
    )
    refusals = {case.name: bench.ours.refusal(case, FORWARD, device) for case in cases}
    cases = tuple(case for case in cases if refusals[case.name] is None)
    notes = [f"{name} is left out: ours {why}" for name, why in refusals.items() if why]
    floor, rows = Floor(device, dtype), []
    threads_before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        facts = environment(device, options.threads)
        facts["rung"] = _rung(suite, options)
        for case in cases:
            say(f"{case.name}: reference in float64")
            problem = _Problem.draw(case, suite.truth, device, dtype)
            for phase in case.work:
                floor.sample()
                rows += bench.time(problem, phase, peers)
    finally:
        torch.set_num_threads(threads_before)
    memory: list[Memory] = []
    if options.memory:
        memory, failures = _measure_memory(
            rows, suite, options, bench.ours.name if options.quick else None, say
        )
        notes += failures
    if facts["load"] and facts["load"][0] > facts["cores"] / 2:
        notes.append(
            f"the load average was {facts['load'][0]:.1f} on {facts['cores']} cores: "
            "these are the figures of a busy machine"
        )
    report = Report(
        suite.operator, facts, options.dtype, cases, floor, rows, memory, notes, bench.ours.name
    )
    if device.type == "cpu" and dtype == torch.float32:
        report.targets = check_targets(suite, report, {peer.name for peer in peers}, options.memory)
    return report

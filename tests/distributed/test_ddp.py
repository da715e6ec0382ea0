"""Two gloo processes at an equal global batch against one process."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).with_name("worker.py")
_spec = importlib.util.spec_from_file_location("saccade_test_worker", WORKER)
worker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(worker)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes wrote."""
    out = tmp_path_factory.mktemp("ddp")
    shared = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(out)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return out


def test_gradients_equal_those_of_one_process(folder):
    found = torch.load(folder / "gradients.pt", weights_only=True)
    expected = worker.gradients(rank=0, world=1)
    assert set(found) == set(expected)
    assert len(found) > 100
    for name, gradient in expected.items():
        # softmax over one token has no gradient: what stands there is rounding
        atol = max(1e-9 * gradient.abs().max().item(), 1e-18)
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=atol, msg=name)
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3


def test_a_run_on_two_processes_equals_a_run_on_one(folder, tmp_path):
    found = torch.load(folder / "fit.pt", weights_only=True)
    single = worker.fit(worker.config(tmp_path, 1, "auto"), write=False)
    for name, value in single.model.state_dict().items():
        torch.testing.assert_close(found["weights"][name], value, rtol=1e-3, atol=1e-4, msg=name)
    # 51 images do not share evenly: none may be dropped or counted twice.
    assert int(found["confusion"].sum()) == 51
    assert torch.equal(found["confusion"].sum(1), single.confusion.sum(1))
    assert found["accuracy"] == pytest.approx(int(found["confusion"].diagonal().sum()) / 51)


def test_the_run_folder_is_written_once(folder):
    rows = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 2
    assert "51 test" in (folder / "run" / "report.md").read_text()
    state = torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["epoch"] == 1


def test_unfreezing_on_two_processes_equals_one(folder):
    found = torch.load(folder / "unfrozen.pt", weights_only=True)
    for name, value in worker.unfrozen(1, "auto").items():
        torch.testing.assert_close(found[name], value, msg=name)

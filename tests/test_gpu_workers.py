"""Processes that share a machine's GPUs."""

import os
from multiprocessing import Value

from dev.gpu_workers import _take, gpu_workers


def test_workers_take_the_visible_gpus_in_turn(monkeypatch):
    turn, taken = Value("i", 0), []
    for _ in range(3):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        _take(["3", "5"], turn)
        taken.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert taken == ["3", "5", "3"]


def test_workers_of_a_machine_without_a_gpu_are_told_of_none(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with gpu_workers(1) as pool:
        assert pool.submit(os.getenv, "CUDA_VISIBLE_DEVICES", "none").result() == "none"

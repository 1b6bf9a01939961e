"""Many processes that share all GPUs of a machine, for runs of small models that leave most of a GPU idle.

With NVIDIA's MPS (`nvidia-cuda-mps-control -d`) they run on a GPU at once, without it in turns.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch


def gpu_workers(count: int) -> ProcessPoolExecutor:
    """`count` processes, each started anew and on one of the GPUs that are visible here, in turn."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    context = get_context("spawn")
    turn = context.Value("i", 0)
    return ProcessPoolExecutor(count, mp_context=context, initializer=_take, initargs=(gpus, turn))


def _take(gpus: list[str], turn: Any) -> None:
    """Before this process asks for a GPU."""
    with turn.get_lock():
        number, turn.value = turn.value, turn.value + 1
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]

"""What every test gets: shapes checked at run time, one thread, a fixed seed, and no network."""

import doctest
import importlib.util
import inspect
import os
import random
import socket
from typing import Any

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

if not torch.cuda.is_available():  # before the first import of triton: its kernels run as Python
    os.environ["TRITON_INTERPRET"] = "1"
if not importlib.util.find_spec("triton"):
    collect_ignore_glob = ["modernbert/kernels/attention_window_*.py"]

if importlib.util.find_spec("beartype"):  # before the first import of modernbert: the hook rewrites modules as they load
    import jaxtyping

    jaxtyping.install_import_hook("modernbert", "typecheck.check")

_connect = socket.socket.connect
_belongs = doctest.DocTestFinder._from_module  # type: ignore[attr-defined]


def _connect_to_this_machine_only(self: socket.socket, address: Any) -> None:
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost", "::1"):
        raise RuntimeError(f"a test tried to reach {address!r}; tests use no network")
    _connect(self, address)


def _belongs_under_its_wrapper(self: doctest.DocTestFinder, module: Any, thing: Any) -> bool:
    """The hook wraps functions, and doctest would take the wrappers for another module's and skip their examples."""
    return _belongs(self, module, inspect.unwrap(thing) if inspect.isfunction(thing) else thing)


socket.socket.connect = _connect_to_this_machine_only  # type: ignore[method-assign, assignment]
doctest.DocTestFinder._from_module = _belongs_under_its_wrapper  # type: ignore[attr-defined]


def pytest_configure() -> None:
    import torch

    torch.set_num_threads(1)  # the workers of xdist share the cores


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    import torch

    if torch.cuda.is_available():
        return
    left_out = [item for item in items if item.get_closest_marker("gpu")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]


@pytest.fixture(autouse=True)
def _same_random_numbers_in_every_test() -> None:
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (libraries still use it)
    torch.manual_seed(0)

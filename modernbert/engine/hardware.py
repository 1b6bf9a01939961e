"""Where a model runs, and in which dtype: the one place that decides both; and what a run says of where it was."""

import platform
import subprocess
from pathlib import Path

import torch

from modernbert import __version__
from modernbert.engine.measured import bf16_gain
from modernbert.errors import ConfigError, HardwareError

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}
"""What a model can be asked to run in, by name. int8 is for the CPU: `engine.quantized`; fp8 for GPUs that have it: `model.fp8`."""

BF16_PAYS = 1.3
"""Least gain of a CPU's products for which bfloat16 is chosen over float32: chips that have it gain about 2, and less than this would not
pay for the lost digits."""


def choose_device(wanted: torch.device | str | None = None) -> torch.device:
    """The device asked for; without a wish the first of CUDA, Apple's GPU and the CPU that is there.

    Raises:
        HardwareError: PyTorch knows no such device, or this machine has none.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if wanted is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # PyTorch raises all three for what is not there
        why = str(error).splitlines()[0]
        raise HardwareError(f"cannot run on device {wanted!r} ({why}); leave the device out to take the best one here") from error
    return device


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU that computes in it natively, float32 elsewhere.

    >>> choose_dtype(torch.device("cpu"))
    torch.float32
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def choose_inference_dtype(device: torch.device) -> torch.dtype:
    """As `choose_dtype`, and bfloat16 on a CPU that computes in it natively, as a short measurement shows."""
    return torch.bfloat16 if device.type == "cpu" and bf16_gain() >= BF16_PAYS else choose_dtype(device)


def read_dtype(wanted: torch.dtype | str) -> torch.dtype:
    """One of `DTYPES`, given as itself or by its name.

    Raises:
        ConfigError: it is none of them.

    >>> read_dtype("int8")
    torch.int8
    """
    dtype = DTYPES.get(wanted) if isinstance(wanted, str) else wanted
    if dtype is None or dtype not in DTYPES.values():
        raise ConfigError(f"dtype={wanted!r}: wanted one of {', '.join(DTYPES)}")
    return dtype


def environment(device: torch.device) -> dict[str, str]:
    """The device by name, and the versions, for logs and results."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} {device.type.upper()}"
    return {"device": name, "python": platform.python_version(), "torch": torch.__version__, "modernbert": __version__}


def commit() -> str | None:
    """The commit that runs, marked + where files differ from it; None where the package is installed without its history."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed.strip() else "")

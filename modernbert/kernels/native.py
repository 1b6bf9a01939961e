"""Products, norms and attention of a CPU with AVX-512 or AVX2, from `native.cpp`; inference only.

    native.cpp ─→ the compiler of this machine, once ─→ ~/.cache/modernbert/native-HASH.so ─→ ctypes

Nothing needs it: where there is no compiler or neither of the two, or where the library's numbers are off, `kinds()` is empty and
PyTorch's own operators do the work. `MODERNBERT_NATIVE=0` switches it off.

T tokens · I inputs · O outputs · N heads of 64 · L positions · K = 32.
"""

import ctypes
import dataclasses
import functools
import hashlib
import itertools
import math
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

PANEL = 64
"""Outputs of a product, and inputs of a norm, come in multiples of this."""
HEAD = 64
"""The one width of a head that attention is written for."""
WIDEST = 8192
"""Of a row that is normed or quantised."""
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")
SOURCES = (
    "native.cpp",
    *(f"native_{part}.h" for part in ("vectors", "avx512", "avx2", "kinds", "tiles", "product", "norm", "attention")),
)
COMPILERS = ("c++", "g++", "clang++")

_VALUES_PER_WORD = {torch.float32: 1, torch.bfloat16: 2, torch.int8: 4}
_KEEP, _ADD, _GEGLU = 0, 1, 2
_GIVEN = {"use_tiles": "i", "pack": "ippii", "product": "iiippppppiiii", "norm": "ipipfppii", "attention": "ipppppiiiii"}
"""What each function of the library takes: pointers, integers of 64 bits, floats."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed:
    """Weights of a product in the order in which the kernel reads them."""

    words: Tensor
    """int32 [O · I / values in a word]."""
    dtype: torch.dtype
    """float32, bfloat16 or int8."""
    inputs: int
    outputs: int
    tiled: bool
    """Whether they lie in AMX's tiles."""
    scale_O: Tensor | None = None
    start_O: Tensor | None = None
    """int32: −128 × the sum of an output's weights, as the bytes of x are around 128."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Tokens in the dtype of a product; bytes around 128 with a scale for each token where that is int8."""

    x_TI: Tensor
    scale_T: Tensor | None = None


@functools.cache
def kinds() -> frozenset[torch.dtype]:
    """In which dtypes products run natively here: some of float32, bfloat16 and int8; none without AVX2 or a compiler."""
    library = _library()
    if library is None:
        return frozenset()
    compiled = library.modernbert_kinds()
    found = {dtype for dtype, per_word in _VALUES_PER_WORD.items() if compiled & per_word}
    right = all(map(_is_right, found)) or (not use_tiles(False) and all(map(_is_right, found)))
    return frozenset(found) if right else frozenset()


def use_tiles(wanted: bool) -> bool:
    """Whether attention, and products with what is packed from now on, go through AMX in bfloat16 and int8: as wanted, where the chip
    has it. It is on at first."""
    library = _library()
    return library is not None and bool(library.modernbert_use_tiles(wanted))


def levels() -> int:
    """The highest level of int8 weights with which products are exact: 127, or 64 where sums of two go through 16 bits."""
    library = _library()
    assert library is not None, "ask kinds() first"
    return int(library.modernbert_levels())


def fits(outputs: int, inputs: int) -> bool:
    """Whether a product has a shape that the kernel knows."""
    return outputs % PANEL == 0 and inputs % PANEL == 0 and inputs <= WIDEST


def pack(weight_OI: Float[Tensor, "O I"] | Int[Tensor, "O I"], scale_O: Float[Tensor, "O"] | None = None) -> Packed:
    """Packs weights for `product`.

    Args:
        weight_OI: in one of `kinds()`, of a shape that `fits`.
        scale_O: of each output, where the weights are int8.
    """
    outputs, inputs = weight_OI.shape
    words_OW = weight_OI.detach().contiguous().view(torch.int32)
    words = torch.empty(words_OW.numel(), dtype=torch.int32)
    tiled = bool(_call("pack", _VALUES_PER_WORD[weight_OI.dtype], words_OW, words, outputs, words_OW.shape[1]))
    start_O = None if scale_O is None else (-128 * weight_OI.sum(1, dtype=torch.int32)).to(torch.int32)
    shape = {"inputs": inputs, "outputs": outputs}
    return Packed(words=words, dtype=weight_OI.dtype, **shape, tiled=tiled, scale_O=scale_O, start_O=start_O)


def rows(
    x_TI: Float[Tensor, "T I"],
    dtype: torch.dtype,
    weight_I: Float[Tensor, "I"] | None = None,
    eps: float = 0.0,
    empty: Callable[..., Tensor] = torch.empty,
) -> Rows:
    """Tokens as a product of this dtype reads them, behind a LayerNorm without bias where there is a weight.

    Args:
        x_TI: float32 or bfloat16.
        dtype: of the product.
        weight_I: of the norm, float32.
        eps: of the norm.
        empty: gives the memory for them: `torch.empty`, or `kept`.
    """
    assert x_TI.is_contiguous()
    assert x_TI.dtype in (torch.float32, torch.bfloat16)
    if weight_I is None and x_TI.dtype == dtype:
        return Rows(x_TI=x_TI)
    y_TI = empty(x_TI.shape, dtype=torch.uint8 if dtype == torch.int8 else dtype)
    scale_T = torch.empty(len(x_TI)) if dtype == torch.int8 else None
    is_float = int(x_TI.dtype == torch.float32)
    tokens, width = x_TI.shape
    _call("norm", _VALUES_PER_WORD[dtype], x_TI, is_float, weight_I, eps, y_TI, scale_T, tokens, width)
    return Rows(x_TI=y_TI, scale_T=scale_T)


def product(x: Rows, weight: Packed, y_TO: Float[Tensor, "T O"]) -> None:
    """y = x · wᵀ, written into float32 or bfloat16."""
    _product(x, weight, y_TO, _KEEP, weight.outputs)


def add_product(x: Rows, weight: Packed, y_TO: Float[Tensor, "T O"]) -> None:
    """y += x · wᵀ, in float32."""
    assert y_TO.dtype == torch.float32
    _product(x, weight, y_TO, _ADD, weight.outputs)


def geglu_product(x: Rows, weight: Packed, y_TO: Float[Tensor, "T O"]) -> None:
    """y = gelu(a) · b, where a is the first half of x · wᵀ and b the second; exact GELU, written into float32 or bfloat16."""
    _product(x, weight, y_TO, _GEGLU, weight.outputs // 2)


def attention(
    qkv_T3NH: Float[Tensor, "T 3 N 64"],
    cos_LK: Float[Tensor, "L 32"],
    sin_LK: Float[Tensor, "L 32"],
    cu_seqlens: Int[Tensor, "B_plus_1"],
    window: int | None,
    empty: Callable[..., Tensor] = torch.empty,
) -> Float[Tensor, "T N 64"]:
    """As `kernels.attention.attention`, in float32 or bfloat16; positions are counted from each row's begin. Threads share the heads.
    `empty` as for `rows`."""
    assert qkv_T3NH.is_contiguous()
    assert cos_LK.is_contiguous()
    assert sin_LK.is_contiguous()
    assert cu_seqlens.dtype == torch.int32
    tokens, _, heads, _ = qkv_T3NH.shape
    o_TNH = empty((tokens, heads, HEAD), dtype=qkv_T3NH.dtype)
    shared = (_VALUES_PER_WORD[qkv_T3NH.dtype], qkv_T3NH, cos_LK, sin_LK, cu_seqlens, o_TNH)
    numbers = (len(cu_seqlens) - 1, heads, -1 if window is None else window)
    parts = min(torch.get_num_threads(), heads) if tokens > ALONE else 1
    cuts = [heads * part // parts for part in range(parts + 1)]
    in_threads([functools.partial(_call, "attention", *shared, *numbers, a, b) for a, b in itertools.pairwise(cuts)])
    return o_TNH


ALONE = 64
"""Tokens up to which one thread does all: others would take longer to wake than to help."""


class _Kept(threading.local):
    """See `kept`."""

    def __init__(self) -> None:
        self.memory: dict[str, Tensor] = {}


_kept = _Kept()


def kept(shape: Sequence[int], dtype: torch.dtype, name: str) -> Tensor:
    """As `torch.empty`, in memory that this thread keeps under a name for its next call, which overwrites it.

    Memory that is new in every layer costs up to a tenth of the time, as the system must clear its pages.
    """
    size = math.prod(shape) * dtype.itemsize
    if name not in _kept.memory or _kept.memory[name].numel() < size:
        _kept.memory[name] = torch.empty(size, dtype=torch.uint8)
    return _kept.memory[name][:size].view(dtype).view(shape)


def in_threads(tasks: Sequence[Callable[[], object]]) -> None:
    """Runs all; together where PyTorch may use several threads. The library holds no lock of Python while it computes."""
    if len(tasks) == 1 or torch.get_num_threads() == 1:
        for task in tasks:
            task()
    else:
        for done in [_pool(torch.get_num_threads()).submit(task) for task in tasks]:
            done.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="modernbert")


def _product(x: Rows, weight: Packed, y_TO: Tensor, ending: int, width: int) -> None:
    assert x.x_TI.is_contiguous()
    assert y_TO.is_contiguous()
    assert y_TO.shape == (len(x.x_TI), width)
    assert x.x_TI.shape[1] == weight.inputs
    assert x.x_TI.dtype == (torch.uint8 if weight.dtype == torch.int8 else weight.dtype)
    per_word = _VALUES_PER_WORD[weight.dtype]
    given = (x.x_TI, x.scale_T, weight.words, weight.scale_O, weight.start_O, y_TO)
    is_float = int(y_TO.dtype == torch.float32)
    _call("product", per_word, int(weight.tiled), ending, *given, len(y_TO), weight.inputs // per_word, weight.outputs, is_float)


def _call(name: str, *args: Tensor | int | float | None) -> int:
    """Tensors as pointers, None as null."""
    library = _library()
    assert library is not None, "ask kinds() first"
    return int(getattr(library, f"modernbert_{name}")(*[x.data_ptr() if isinstance(x, Tensor) else x for x in args]))


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The compiled library, from the cache or made now (some 2 seconds, once a machine)."""
    if os.environ.get("MODERNBERT_NATIVE") == "0" or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return None
    try:
        library = ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.SubprocessError):
        return None
    types = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "f": ctypes.c_float}
    for name, given in _GIVEN.items():
        getattr(library, f"modernbert_{name}").argtypes = [types[one] for one in given]
    library.modernbert_use_tiles(1)
    return library


def _compiled() -> Path:
    """Raises OSError or SubprocessError where it cannot be made."""
    sources = {name: Path(__file__).with_name(name).read_bytes() for name in SOURCES}
    info = Path("/proc/cpuinfo")
    chip = next((line for line in info.read_text().splitlines() if line.startswith("flags")), "") if info.exists() else ""
    made_of = b"".join(sources.values()) + chip.encode() + " ".join(FLAGS).encode()
    name = f"native-{hashlib.sha256(made_of).hexdigest()[:16]}.so"
    home = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(home) if home else Path.home() / ".cache") / "modernbert"
    if (folder / name).exists():
        return folder / name
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise FileNotFoundError("no C++ compiler")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as stage:
        for file, source in sources.items():
            (Path(stage) / file).write_bytes(source)
        command = [*compiler.split(), *FLAGS, "native.cpp", "-o", name]
        subprocess.run(command, cwd=stage, check=True, capture_output=True, timeout=120)
        os.replace(Path(stage) / name, folder / name)
    return folder / name


def _is_right(dtype: torch.dtype) -> bool:
    """Whether the library computes what PyTorch does, on a small product whose sums are exact in every dtype."""
    generator = torch.Generator().manual_seed(0)
    x_TI = torch.randint(-3, 4, (7, PANEL), generator=generator).float()
    x_TI[:, 0] = 127  # the greatest, so that int8's scale is 1
    weight_OI = torch.randint(-levels(), levels() + 1, (2 * PANEL, PANEL), generator=generator).float()
    y_TO = torch.empty(7, 2 * PANEL)
    product(rows(x_TI, dtype), pack(weight_OI.to(dtype), torch.ones(2 * PANEL) if dtype == torch.int8 else None), y_TO)
    return torch.equal(y_TO, F.linear(x_TI, weight_OI))

"""What the window kernels ask of a GPU, read off the compiler on any machine: registers, spills, shared memory, instructions.

Needs Triton, and no GPU: its wheel has the assembler and the disassembler. The instructions of a program say how fast a kernel could be
at best, if a processor issued one in every slot (four in a cycle); memory has a bound of its own.
"""

import dataclasses
import re
import subprocess
import tempfile
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from modernbert.kernels import attention_window_triton as kernels
from modernbert.kernels.attention_window import Tiles

HOPPER = 90
REGISTERS, SHARED, THREADS = 65_536, 227 * 1024, 2048
"""Of one of Hopper's processors (CUDA programming guide, table of compute capabilities)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """Of one kernel, compiled."""

    registers: int
    """Of each thread."""
    spilled: int
    """Bytes of each thread that found no register and lie in memory."""
    shared: int
    """Bytes of each program."""
    instructions: int
    """In all."""
    instructions_of_a_step: int
    """In the loop over the other side."""
    resident: int
    """Programs that one processor holds at a time."""


def resources(kernel: str, tiles: Tiles, *, dtype: str = "bf16", heads: int = 12, head_dim: int = 64) -> Resources:
    """Compiles a kernel for Hopper and reads what it takes.

    Args:
        kernel: "forward", "backward_queries" or "backward_keys".
        tiles: how it cuts its work.
        dtype: "bf16", "fp16" or "fp32".
        heads, head_dim: shape of the model.
    """
    compiled = _compile(getattr(kernels, kernel), tiles, dtype, heads, head_dim)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, listing = (_cuobjdump(option, file.name) for option in ("--dump-resource-usage", "-sass"))
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, "cuobjdump prints both for each kernel"
    registers, spilled = map(int, found.groups())
    shared = compiled.metadata.shared
    total, step = _instructions(listing)
    threads = 32 * tiles.warps
    registers_taken = -(-registers // 8) * 8 * threads  # handed out by eights to a warp's 32 threads
    return Resources(
        registers=registers,
        spilled=spilled,
        shared=shared,
        instructions=total,
        instructions_of_a_step=step,
        resident=min(REGISTERS // registers_taken, SHARED // (shared + 1024), THREADS // threads),
    )


def _compile(kernel: Any, tiles: Tiles, dtype: str, heads: int, head_dim: int) -> Any:
    across = ("KEYS", "QUERIES") if kernel is kernels.backward_keys else ("QUERIES", "KEYS")
    constants = {"N": heads, "H": head_dim, across[0]: tiles.own, across[1]: tiles.step}
    types = dict.fromkeys(kernel.arg_names, "i32")
    types |= dict.fromkeys(("qk", "qkv", "o", "do", "dqkv"), f"*{dtype}") | dict.fromkeys(("cos", "sin", "lse", "delta"), "*fp32")
    types |= {"cu_seqlens": "*i32", "scale": "fp32", "score_scale": "fp32"} | dict.fromkeys(constants, "constexpr")
    signature = {name: types[name] for name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind.startswith("*")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = tiles.options(head_dim * (4 if dtype == "fp32" else 2))
    return triton.compile(source, target=GPUTarget("cuda", HOPPER, 32), options=options)


def _cuobjdump(option: str, file: str) -> str:
    return subprocess.run([triton.knobs.nvidia.cuobjdump.path, option, file], capture_output=True, text=True, check=True).stdout


def _instructions(listing: str) -> tuple[int, int]:
    """All instructions, and those of the largest loop: what lies between a branch and the earlier place that it goes to.

    >>> line = "        /*{:04x}*/                   {} ;"
    >>> code = ["MOV R1, R2", "FADD R1, R1, R2", "@P0 BRA 0x10", "EXIT"]
    >>> _instructions("\\n".join(line.format(16 * i, text) for i, text in enumerate(code)))
    (4, 2)
    """
    found = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+((?:@!?U?P\w+\s+)?[A-Z][^;]*);", listing, re.MULTILINE)
    places = {int(place, 16): i for i, (place, _) in enumerate(found)}
    largest = 0
    for i, (_, text) in enumerate(found):
        target = re.search(r"\bBRA\b.*0x([0-9a-f]+)", text)
        if target and (begin := places.get(int(target[1], 16), i)) < i:
            largest = max(largest, i - begin + 1)
    return len(found), largest

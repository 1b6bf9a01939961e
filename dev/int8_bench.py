"""Measures int8 on this CPU: its products beside float32's and other int8 forms, and a model of the base size.

    OMP_NUM_THREADS=1 python dev/int8_bench.py products
    OMP_NUM_THREADS=1 python dev/int8_bench.py folder TOKENIZER FOLDER           # the base size, random weights, bf16
    OMP_NUM_THREADS=1 python dev/int8_bench.py model FOLDER float32|int8         # one process each: it says what memory it took
    OMP_NUM_THREADS=1 python dev/int8_bench.py outliers FOLDER                   # what fallback does, at several sizes of outliers

One thread, process time, in turns; medians. Prints Markdown, or lines for one.
"""

import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from modernbert.batch import pack
from modernbert.checkpoint.folder import load_model, save_model
from modernbert.config import preset
from modernbert.engine.engine import load
from modernbert.engine.quantized import BOUND, NEAR, quantize_model
from modernbert.kernels.linear_int8 import linear_int8, pack_weight, quantize_rows, weight_levels
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLM
from modernbert.model.init import init_weights
from modernbert.text.tokenizer import Tokenizer

SHAPES = {"Wqkv, Wi": (768, 2304), "attn.Wo": (768, 768), "mlp.Wo": (1152, 768)}


def products(repeats: int = 12) -> None:
    print(f"levels of the weights here: {weight_levels()}; load {os.getloadavg()[0]:.1f}; torch {torch.__version__}\n")
    print("| product | tokens | form | ms | spread | GFLOP/s | × float32 |\n|---|---:|---|---:|---:|---:|---:|")
    for name, (inputs, outputs) in SHAPES.items():
        weight_OI = torch.randn(outputs, inputs)
        for tokens in (16, 256, 512, 1024, 4096):
            x_TI = torch.randn(tokens, inputs)
            forms = {form: compute for form, compute in forms_of(weight_OI).items() if form != "_int_mm" or tokens == 256}
            took: dict[str, list[float]] = {form: [] for form in forms}
            calls = max(1, 512 // tokens)
            for repeat in range(repeats + 1):
                for form, compute in forms.items():
                    start = time.process_time()
                    for _ in range(calls):
                        compute(x_TI)
                    if repeat:  # the first warms up
                        took[form].append((time.process_time() - start) / calls * 1e3)
            for form, times in took.items():
                ms, plain = statistics.median(times), statistics.median(took["float32"])
                speed = 2 * tokens * inputs * outputs / ms / 1e6
                row = f"{ms:.2f} | {min(times):.2f} – {max(times):.2f} | {speed:.0f} | {plain / ms:.2f}"
                print(f"| {name} {inputs} → {outputs} | {tokens:,} | {form} | {row} |", flush=True)


def forms_of(weight_OI: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """What PyTorch has, each with its own quantisation of the tokens. Those with quantised tensors are deprecated since 2.13."""
    levels = weight_levels()
    assert levels is not None
    numbers_OI, scale_O = quantize_rows(weight_OI, levels)
    packed = pack_weight(numbers_OI)

    def signed(x_TI: Tensor) -> Tensor:
        x_int8_TI, scale_T = quantize_rows(x_TI)
        zero = torch.zeros(1, dtype=torch.int64)
        args = (packed, scale_O, zero, None, 1.0, 0, torch.float32, "none", [], "")
        return torch.ops.onednn.qlinear_pointwise(x_int8_TI, 1.0, 0, *args).mul_(scale_T[:, None])

    def int_mm(x_TI: Tensor) -> Tensor:
        x_int8_TI, scale_T = quantize_rows(x_TI)
        return torch._int_mm(x_int8_TI, numbers_OI.T) * scale_O * scale_T[:, None]

    forms = {
        "float32": lambda x_TI: F.linear(x_TI, weight_OI),
        "**ours** (oneDNN, bytes around 128)": lambda x_TI: linear_int8(x_TI, packed, scale_O),
        "oneDNN, signed": signed,
        "quantising alone": lambda x_TI: quantize_rows(x_TI)[0],
        "_int_mm": int_mm,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.quantized.engine = "fbgemm"
        zeros_O = torch.zeros(len(weight_OI), dtype=torch.int64)
        as_tensor = torch._make_per_channel_quantized_tensor(numbers_OI, scale_O.double(), zeros_O, 0)
        fbgemm = torch.ops.quantized.linear_prepack(as_tensor, None)

    def by_token(x_TI: Tensor) -> Tensor:
        scale_T = x_TI.abs().amax(-1, keepdim=True) / 127
        form = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        return form(x_TI / scale_T, 1.0, 128, fbgemm).mul_(scale_T)

    return forms | {
        "FBGEMM, scale a token": by_token,
        "FBGEMM, one scale (linear_dynamic)": lambda x_TI: torch.ops.quantized.linear_dynamic(x_TI, fbgemm),
    }


def folder(tokenizer: str, out: str) -> None:
    config = preset("base")
    model = MaskedLM(config).eval()
    init_weights(model, config, torch.Generator().manual_seed(0))
    with torch.no_grad():  # 1/√hidden_size in place of 0.02: layers matter, and errors with them
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter *= 0.036 / 0.02
    save_model(model, config, out, tokenizer=Tokenizer.load(Path(tokenizer)), dtype=torch.bfloat16)


def model(name: str, dtype: str) -> None:
    before, start = memory(), time.process_time()
    engine = load(name, device="cpu", dtype=dtype)
    loaded = time.process_time() - start
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(10, 4000, (512,), generator=generator).tolist()]
    speeds = []
    with torch.inference_mode():
        for _ in range(5):
            start = time.process_time()
            engine.model.model(pack(rows))  # type: ignore[operator, union-attr]
            speeds.append(512 / (time.process_time() - start))
    now = memory()
    print(
        f"{dtype}: loaded in {loaded:.2f} s; {statistics.median(speeds):.0f} tokens/s at 512 ({min(speeds):.0f} – {max(speeds):.0f}, n 5); "
        f"anonymous memory {now['RssAnon'] - before['RssAnon']:.0f} MB more than before loading; "
        f"peak of all, with PyTorch ({before['VmRSS']:.0f}) and pages of the file, {now['VmHWM']:.0f} MB; load {os.getloadavg()[0]:.1f}"
    )


def memory() -> dict[str, float]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) / 1e3 for line in lines if line.startswith(("RssAnon", "VmHWM", "VmRSS"))}


@torch.no_grad()
def outliers(name: str) -> None:
    plain = load_model(Encoder, name, dtype=torch.float32)
    vocabulary = min(4000, plain.config.vocab_size)
    generator = torch.Generator().manual_seed(0)
    tried, read = (
        pack([torch.randint(5, vocabulary, (n,), generator=generator).tolist() for n in lengths])
        for lengths in ([20, 80], [100, 9])
    )
    wanted_TD = plain(read)
    print("| outliers | float32 before and after | all in int8: least, median | with fallback: least, median | in float32 |")
    print("|---|---:|---:|---:|---:|")
    for factor in (1, 5, 20, 50, 200):
        shown = []
        for bound, near in ((1e9, -1.0), (BOUND, NEAR)):
            changed = load_model(Encoder, name, dtype=torch.float32)
            for layer in changed.layers:
                layer.mlp_norm.weight[[3, 10]] *= factor
                layer.mlp.Wi.weight[:, [3, 10]] /= factor
                layer.mlp.Wi.weight[[changed.config.intermediate_size + channel for channel in (3, 10)]] *= factor
                layer.mlp.Wo.weight[:, [3, 10]] /= factor
            same = torch.cosine_similarity(changed(read), wanted_TD).min().item()
            layers = quantize_model(changed, tried, bound, near)
            cosines = torch.cosine_similarity(changed(read), wanted_TD)
            shown.append(f"{cosines.min():.4f}, {cosines.median():.4f}")
        floats = sum(not layer.int8 for layer in layers)
        print(f"| × {factor} | {same:.6f} | {' | '.join(shown)} | {floats} of {len(layers)} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"products": products, "folder": folder, "model": model, "outliers": outliers}[sys.argv[1]](*sys.argv[2:])

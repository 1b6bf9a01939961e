"""Who runs in the CPU record: each a function from a config and a folder for files to a call that encodes rows.

Random weights, base's shapes, ids as lists. Peers get their rows padded to the longest, with an attention mask, as their users do.

B rows · L padded length.
"""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from modernbert.batch import pack
from modernbert.checkpoint.folder import load_model, save_model
from modernbert.config import ModelConfig
from modernbert.engine.hardware import BF16_PAYS
from modernbert.engine.measured import bf16_gain, int8_gain
from modernbert.engine.native_layers import use_native_layers
from modernbert.engine.quantized import quantize_model
from modernbert.engine.runner import Runner
from modernbert.errors import HardwareError, MissingExtraError
from modernbert.model.encoder import Encoder
from modernbert.model.init import init_weights
from modernbert.runtime.padding import padded as filled_up
from modernbert.text.tokenizer import Tokenizer

Rows = Sequence[Sequence[int]]
Encode = Callable[[Rows, int], object]
"""Rows and the length that a peer pads them to → hidden states."""
Prepare = Callable[[ModelConfig, Path, int], Encode]
"""Config, a folder for files, threads → encode."""


def ours(dtype: torch.dtype) -> Prepare:
    """Our encoder behind the engine's runner: rows sorted and cut into micro-batches, packed, results as numpy."""

    def prepare(config: ModelConfig, folder: Path, threads: int) -> Encode:
        _native(dtype)
        model = load_model(Encoder, _saved(config, folder), dtype=None if dtype == torch.int8 else dtype)
        if dtype == torch.int8:
            if int8_gain() < 1:
                raise HardwareError(f"int8 gains {int8_gain():.2f} here")
            quantize_model(model, pack([list(range(5, 205))]))
        use_native_layers(model)
        runner = Runner(model, cast(Tokenizer, None))  # rows are ids already
        return lambda rows, padded: runner.per_token(rows, runner.encoder, "bench")

    return prepare


def _saved(config: ModelConfig, folder: Path) -> Path:
    """A folder with random weights in bfloat16, as models are published; made once, by another process, whose memory is not ours."""
    saved = folder / "ours"
    if not saved.exists():
        code = "from modernbert.bench.cpu_contestants import save_random; save_random()"
        subprocess.run([sys.executable, "-c", code, json.dumps(config.to_json()), str(saved)], check=True)
    return saved


def save_random() -> None:
    """What that process does."""
    config = ModelConfig.from_json(json.loads(sys.argv[1]))
    model = Encoder(config).eval()
    init_weights(model, config, torch.Generator().manual_seed(0))
    save_model(model, config, sys.argv[2], dtype=torch.bfloat16)
    os.sync()  # as of a model that was fetched some time ago, pages can be given back


def transformers_sdpa(dtype: torch.dtype) -> Prepare:
    """transformers' ModernBertModel."""

    def prepare(config: ModelConfig, folder: Path, threads: int) -> Encode:
        _native(dtype)
        model = _theirs(config).to(dtype)

        def encode(rows: Rows, padded: int) -> Tensor:
            ids_BL, mask_BL = filled_up(rows, 0, padded)
            with torch.inference_mode():
                return model(input_ids=torch.from_numpy(ids_BL), attention_mask=torch.from_numpy(mask_BL)).last_hidden_state

        return encode

    return prepare


def onnx_runtime(*, int8: bool) -> Prepare:
    """ONNX Runtime on transformers' model, exported by torch.onnx; int8 is its dynamic quantization, per channel."""

    def prepare(config: ModelConfig, folder: Path, threads: int) -> Encode:
        import onnxruntime

        path = _exported(config, folder)
        if int8:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            plain, path = path, folder / "int8.onnx"
            if not path.exists():
                quantize_dynamic(
                    plain, path, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"]
                )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda rows, padded: session.run(None, dict(zip(("ids", "mask"), filled_up(rows, 0, padded), strict=True)))

    return prepare


def openvino(precision: str) -> Prepare:
    """OpenVINO on the same export; `precision` is its inference precision, f32 or bf16."""

    def prepare(config: ModelConfig, folder: Path, threads: int) -> Encode:
        import openvino

        if precision == "bf16":
            _native(torch.bfloat16)
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
        compiled = openvino.Core().compile_model(str(_exported(config, folder)), "CPU", settings)
        request = compiled.create_infer_request()
        return lambda rows, padded: request.infer(dict(zip(("ids", "mask"), filled_up(rows, 0, padded), strict=True)))

    return prepare


CONTESTANTS: dict[str, Prepare] = {
    "modernbert, fp32": ours(torch.float32),
    "modernbert, bf16": ours(torch.bfloat16),
    "modernbert, int8": ours(torch.int8),
    "transformers sdpa, fp32": transformers_sdpa(torch.float32),
    "transformers sdpa, bf16": transformers_sdpa(torch.bfloat16),
    "ONNX Runtime, fp32": onnx_runtime(int8=False),
    "ONNX Runtime, int8": onnx_runtime(int8=True),
    "OpenVINO, fp32": openvino("f32"),
    "OpenVINO, bf16": openvino("bf16"),
}


def _native(dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and bf16_gain() < BF16_PAYS:
        raise HardwareError(f"this CPU does not compute bfloat16 natively: a product gains {bf16_gain():.2f}")


def _theirs(config: ModelConfig) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("this record compares with transformers: pip install 'modernbert[hf]'") from error
    torch.manual_seed(0)
    return transformers.ModernBertModel(
        transformers.ModernBertConfig.from_dict(config.to_json(), attn_implementation="sdpa")
    ).eval()


class _Hidden(nn.Module):
    """From two tensors to one, as the exporter likes it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        return self.model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state


def _exported(config: ModelConfig, folder: Path) -> Path:
    """transformers' model as ONNX with any number of rows and tokens; made once."""
    path = folder / "model.onnx"
    if not path.exists():
        ids_BL = torch.randint(5, config.vocab_size, (2, 70))
        any_size = {0: torch.export.Dim("rows", min=1, max=512), 1: torch.export.Dim("tokens", min=2, max=8192)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Hidden(_theirs(config)),
                (ids_BL, torch.ones_like(ids_BL)),
                folder / "part.onnx",
                input_names=["ids", "mask"],
                dynamo=True,
                dynamic_shapes=(any_size, any_size),
                external_data=False,
            )
        (folder / "part.onnx").rename(path)
    return path

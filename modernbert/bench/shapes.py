"""How deep and how wide: tokens a second of the shapes that spend one number of parameters, predicted and measured.

    modernbert bench shapes --parameters 150M

A shape is fast when its products fill whole tiles and whole waves of the GPU's processors (Warner et al. 2024 §2.1.3, after Anthony et
al. 2024, arXiv 2401.14489). The prediction knows that, and four speeds of the machine at hand, none of them measured on a candidate:

    product      waves of 128-row tiles at the speed of one large product, and its bytes at the speed of a copy
    attention    time of one head and token, in local and in global layers
    the rest     bytes read and written by norms, GeGLU and rotation, each in one pass, at the speed of a copy

A few seconds for the prediction; one or two for each shape that is measured.

T tokens · D hidden · I inside the MLP.
"""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import torch

from modernbert.batch import Batch
from modernbert.bench.record import environment, summary
from modernbert.bench.timing import ceilings, seconds_of
from modernbert.config import HEAD_DIM, SIZES, ModelConfig
from modernbert.engine.hardware import choose_device, choose_dtype
from modernbert.errors import ConfigError
from modernbert.kernels.attention import attention
from modernbert.kernels.rope import rotary_tables
from modernbert.model.encoder import Encoder
from modernbert.tasks.metrics import spearman

TILE_ROWS = 128
TILE_COLUMNS = (128, 256)
"""Sizes of a product's tiles in cuBLAS's kernels for tensor cores; the library takes what fits better."""

EXPOSED = 0.8
"""Share of a product's reads and writes that its arithmetic does not hide: with it the four products of base on an H100 (588, 495, 591 and
546 TFLOP/s at 65,536 rows, where 8192³ runs at 742) come out within 5 %."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """What a prediction needs to know of the device."""

    processors: int
    """That work on tiles at the same time."""
    flops: float
    """Of one large product, a second."""
    bytes: float
    """Copied in a second, read and written counted."""
    local_attention: float
    """Seconds for each token and head."""
    global_attention: float


def product_seconds(machine: Machine, rows: int, columns: int, inner: int) -> float:
    """Time of `[rows, inner] @ [inner, columns]` in 16 bits: whole waves of whole tiles, and what is read and written.

    On one processor nothing is lost but the edges of tiles:

    >>> machine = Machine(processors=1, flops=1e12, bytes=1e99, local_attention=0, global_attention=0)
    >>> product_seconds(machine, 128, 129, 64) / product_seconds(machine, 128, 256, 64)
    1.0
    """
    whole_inner = 64 * math.ceil(inner / 64)

    def computing(tile_columns: int) -> float:
        tiles = math.ceil(rows / TILE_ROWS) * math.ceil(columns / tile_columns)
        waves = math.ceil(tiles / machine.processors)
        return waves * machine.processors * 2 * TILE_ROWS * tile_columns * whole_inner / machine.flops

    moved = 2 * (rows * inner + inner * columns + rows * columns)
    return min(map(computing, TILE_COLUMNS)) + EXPOSED * moved / machine.bytes


def predicted_seconds(config: ModelConfig, tokens: int, machine: Machine) -> float:
    """Time of the encoder's forward pass over `tokens` tokens in 16 bits."""
    width, inside = config.hidden_size, config.intermediate_size
    products = ((3 * width, width), (width, width), (2 * inside, width), (width, inside))
    of_products = sum(product_seconds(machine, tokens, columns, inner) for columns, inner in products)
    norms = 2 * 3 * width  # read the stream and what is added, write the sum; normed values go on to a product
    moved = 2 * tokens * (norms + 2 * width + 3 * inside + 4 * width)
    layers = config.num_hidden_layers * (of_products + moved / machine.bytes)
    heads = tokens * config.num_attention_heads
    per_head = {None: machine.global_attention, config.local_attention // 2: machine.local_attention}
    return layers + heads * sum(per_head[config.window(i)] for i in range(config.num_hidden_layers))


def parameters_of(config: ModelConfig) -> int:
    """Weights of the encoder, its embedding included.

    >>> parameters_of(ModelConfig())
    149014272
    """
    width = config.hidden_size
    layer = 4 * width * width + 3 * width * config.intermediate_size + 2 * width
    return config.vocab_size * width + config.num_hidden_layers * layer + width  # no norm before the first attention


def candidates(parameters: int, count: int = 12) -> list[ModelConfig]:
    """Shapes of about so many parameters, from deep and narrow to shallow and wide, the published ones of that size among them.

    Widths are multiples of the head's 64; depth and the MLP's width are chosen so that the MLP is nearest to 1.5 times as wide as the
    stream, as in ModernBERT-base, and the parameters come within 1 %.

    >>> shapes = candidates(150_000_000)
    >>> len(shapes), all(abs(parameters_of(shape) - 150e6) < 1.5e6 for shape in shapes)
    (12, True)
    """
    near = 0.01 * parameters
    published = [shape for shape in _published() if abs(parameters_of(shape) - parameters) <= near]
    taken = {(shape.hidden_size, shape.num_hidden_layers) for shape in published}
    found: list[tuple[int, float, ModelConfig]] = []
    for width in range(2 * HEAD_DIM, 33 * HEAD_DIM, HEAD_DIM):
        options = []
        for depth in range(4, 65):
            left = parameters - ModelConfig.vocab_size * width - depth * (4 * width * width + 2 * width)
            inside = 32 * round(left / (3 * depth * width) / 32)
            if inside < width // 2 or (width, depth) in taken:
                continue
            shape = _shape(depth, width, inside)
            if abs(parameters_of(shape) - parameters) <= near:
                options.append((abs(inside / width - 1.5), shape))
        options.sort(key=lambda option: option[0])
        found += [(rank, distance, shape) for rank, (distance, shape) in enumerate(options)]
    found.sort(key=lambda option: option[:2])  # the best depth of each width, then the second best
    shapes = published + [shape for _, _, shape in found]
    return sorted(shapes[:count], key=lambda shape: (shape.hidden_size, -shape.num_hidden_layers))


def _published() -> dict[ModelConfig, str]:
    """The published sizes and their names; of equals the last named, so that base is base."""
    return {_shape(layers, width, inside): name for name, (layers, width, inside, _) in SIZES.items()}


def _shape(layers: int, width: int, inside: int) -> ModelConfig:
    return ModelConfig(
        num_hidden_layers=layers, hidden_size=width, intermediate_size=inside, num_attention_heads=width // HEAD_DIM
    )


def measure_machine(device: torch.device, tokens: int, length: int) -> Machine:
    """The four speeds, in a few seconds, in the dtype that the engine would take."""
    dtype = choose_dtype(device)
    cuda = device.type == "cuda"
    copied, multiplied = ceilings(device, dtype, 8192 if cuda else 512)
    heads = 12
    qkv = torch.randn(tokens, 3, heads, HEAD_DIM, device=device, dtype=dtype)
    batch = rows_of(tokens, length, device)
    cos, sin = rotary_tables(length, HEAD_DIM, 10_000.0, device)

    def per_head(window: int | None) -> float:
        def call() -> torch.Tensor:
            return attention(qkv, cos, sin, batch.pos_T, batch.cu_seqlens, length, window)

        return min(seconds_of(call, device)) / (tokens * heads)

    return Machine(
        processors=torch.cuda.get_device_properties(device).multi_processor_count if cuda else 1,
        flops=multiplied,
        bytes=copied,
        local_attention=per_head(64),
        global_attention=per_head(None),
    )


def measured_seconds(config: ModelConfig, batch: Batch, *, repeats: int) -> list[float]:
    """Times of the encoder's forward pass with random weights."""
    torch.manual_seed(0)
    model = Encoder(config).to(batch.device, choose_dtype(batch.device)).eval()
    with torch.inference_mode():
        return seconds_of(lambda: model(batch), batch.device, repeats=repeats)


def rows_of(tokens: int, length: int, device: torch.device) -> Batch:
    """Rows of one length with random ids."""
    cu_seqlens = torch.arange(0, tokens + 1, length, dtype=torch.int32, device=device)
    pos_T = torch.arange(tokens, dtype=torch.int32, device=device) % length
    ids_T = torch.randint(100, 16_000, (tokens,), generator=torch.Generator().manual_seed(42), dtype=torch.int32)
    return Batch(ids_T=ids_T.to(device), pos_T=pos_T, cu_seqlens=cu_seqlens, max_seqlen=length)


def shapes_record(
    parameters: int, *, count: int = 12, tokens: int = 65_536, length: int = 512, repeats: int = 10, device: str | None = None
) -> dict[str, Any]:
    """Predicts and measures each candidate, and says how well the orders agree.

    Args:
        parameters: to spend, embedding included.
        count: shapes.
        tokens: in a batch; a multiple of `length`.
        length: of every row, in tokens.
        repeats: measurements of each shape.
        device: None takes the best one here.

    Returns:
        The record for JSON; shapes are ordered by what was measured, fastest first.

    Raises:
        ConfigError: no shape has so few or so many parameters, or rows do not fill the batch.
        HardwareError: the device is not there.
    """
    where, chosen = choose_device(device), candidates(parameters, count)
    if not chosen:
        raise ConfigError(
            f"no shape of {parameters:,} parameters; wanted enough for the embedding and four layers: try 17M or 150M"
        )
    if tokens % length:
        raise ConfigError(f"tokens={tokens} is no multiple of length={length}; try tokens={tokens // length * length or length}")
    machine = measure_machine(where, tokens, length)
    batch = rows_of(tokens, length, where)
    names = _published()
    lines: list[dict[str, Any]] = []
    for config in chosen:
        times = measured_seconds(config, batch, repeats=repeats)
        line = {
            "layers": config.num_hidden_layers,
            "hidden": config.hidden_size,
            "intermediate": config.intermediate_size,
            "parameters": parameters_of(config),
            "published": names.get(config),
            "predicted_tokens_per_second": tokens / predicted_seconds(config, tokens, machine),
            "tokens_per_second": summary([tokens / seconds for seconds in times]),
        }
        lines.append(line)
    predicted = np.array([line["predicted_tokens_per_second"] for line in lines])
    measured = np.array([line["tokens_per_second"]["median"] for line in lines])
    return {
        "subject": "shapes",
        "environment": environment("torch"),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else where.type,
        "machine": dataclasses.asdict(machine),
        "tokens": tokens,
        "length": length,
        "spearman": spearman(measured, predicted),
        "shapes": sorted(lines, key=lambda line: -line["tokens_per_second"]["median"]),
    }


def markdown(record: dict[str, Any]) -> str:
    """The record as a table."""
    head = "| layers | hidden | intermediate | parameters | k tokens/s | predicted | |\n|---:|---:|---:|---:|---:|---:|---|"
    lines = [
        f"| {line['layers']} | {line['hidden']} | {line['intermediate']} | {line['parameters'] / 1e6:.1f} M | "
        f"{line['tokens_per_second']['median'] / 1e3:,.1f} | {line['predicted_tokens_per_second'] / 1e3:,.1f} | {line['published'] or ''} |"
        for line in record["shapes"]
    ]
    return "\n".join(itertools.chain([head], lines, ["", f"Spearman's ρ of the two orders: {record['spearman']:.2f}"]))

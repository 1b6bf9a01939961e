"""A small writer of ONNX graphs: operators in, names of values out; and the one place that knows how weights are stored in each form.

Only operators of the ONNX standard are written (opset 17), so that every runtime reads the files; 4-bit products alone are
ONNX Runtime's own `MatMulNBits`, which OpenVINO and the browser read too.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from modernbert.errors import MissingExtraError
from modernbert.export.weights import four_bit, int8_rows

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise MissingExtraError("export writes ONNX files: pip install 'modernbert[export]'") from error

OPSET = 17
"""The first with LayerNormalization; ONNX Runtime reads it from 1.12 on."""
IR_VERSION = 8
"""Of the file format; the one of opset 17's time."""
MICROSOFT = "com.microsoft"
EXTERNAL = 1_900_000_000
"""Bytes beyond which weights lie in a file of their own beside the graph: protobuf ends at 2 GB."""

ZERO = 128
"""The level of 0 in int8 products, whose factors are both unsigned: with signed weights ONNX Runtime's kernel for AVX2 sums pairs in
16 bits and saturates (error 2.0 % of a product in place of 1.1), and with signed tokens it has no fast kernel at all (a third of fp32's
speed)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """How an exported file stores weights and computes."""

    file: str
    """Under `onnx/`; the names that transformers.js knows."""
    dtype: type[np.float32] | type[np.float16] = np.float32
    """Of everything that is not a quantised product."""
    products: Literal["float", "int8", "4-bit"] = "float"
    floats: frozenset[str] = frozenset()
    """Weights whose products are float nevertheless; a table among them is stored as float16."""
    bound: float | None = None
    """Largest difference from the engine that is let through, where the largest value is 1; None only reports it."""


FORMS: dict[str, Form] = {
    "fp32": Form(file="model.onnx", bound=1e-4),
    "fp16": Form(file="model_fp16.onnx", dtype=np.float16, bound=1e-2),
    "int8": Form(file="model_quantized.onnx", products="int8"),
    "q4": Form(file="model_q4.onnx", products="4-bit"),
    "q4f16": Form(file="model_q4f16.onnx", dtype=np.float16, products="4-bit"),
}


Place = tuple[str, list[int], int, int]
"""Of a tensor in a safetensors file: its type there, its shape, and offset and length in bytes."""


class Graph:
    """A graph in the making. Each method adds operators and returns the name of what they compute."""

    opset, ir_version = OPSET, IR_VERSION

    def __init__(self, weights: Mapping[str, np.ndarray], form: Form) -> None:
        """Begins without operators.

        Args:
            weights: float32, under their published names; each is written once it is used.
            form: how they are stored.
        """
        self.form = form
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._stored: dict[str, onnx.TensorProto] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Adds one operator; returns the name of its result, or a list of names for several."""
        number = len(self._nodes)
        names = [f"{kind}_{number}" if outputs == 1 else f"{kind}_{number}.{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{number}", domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """A constant, written once however often it is asked for."""
        array = np.asarray(value, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        return self._store(self._constants.setdefault(key, f"constant_{len(self._constants)}"), array)

    def real(self, value: float) -> str:
        """A constant in the dtype of the graph."""
        return self.constant(value, self.form.dtype)

    def cast(self, x: str, dtype: Any) -> str:
        """The same values in another dtype."""
        return self.op("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def to_real(self, x: str) -> str:
        """The same values in the dtype of the graph, from another."""
        return self.cast(x, self.form.dtype)

    def to_float32(self, x: str) -> str:
        """The same values, which are in the dtype of the graph, as float32."""
        return x if self.form.dtype is np.float32 else self.cast(x, np.float32)

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps an axis, −1 is the rest."""
        return self.op("Reshape", x, self.constant(shape))

    def slice(self, x: str, start: int, end: str | int, axis: int) -> str:
        """From `start` up to `end` (a number, or the name of a tensor of one) along an axis."""
        stop = end if isinstance(end, str) else self.constant([end])
        return self.op("Slice", x, self.constant([start]), stop, self.constant([axis]))

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Neighbouring parts along an axis."""
        return self.op("Split", x, self.constant(sizes), outputs=len(sizes), axis=axis)

    def layer_norm(self, x: str, name: str, epsilon: float) -> str:
        """Norm over the last axis, with the weight of that name and no bias; statistics in float32."""
        return self.op("LayerNormalization", x, self._real_weight(name), axis=-1, epsilon=epsilon)

    def gelu(self, x: str) -> str:
        """x · Φ(x), exactly; written out, and fused again by the runtimes."""
        half = self.op("Mul", x, self.real(0.5))
        return self.op("Mul", half, self.op("Add", self.op("Erf", self.op("Div", x, self.real(2**0.5))), self.real(1.0)))

    def rows_of_table(self, ids: str, name: str) -> str:
        """Rows of an embedding table."""
        if name in self.form.floats:
            return self.to_real(self.op("Gather", self._store(name, self._weights[name].astype(np.float16)), ids))
        if self.form.products == "float":
            return self.op("Gather", self._store(name, self._weights[name].astype(self.form.dtype)), ids)
        table, scale = self._int8(name)  # beside 4-bit products too: the standard has no 4-bit lookup
        rows = self.op("Sub", self.to_real(self.op("Gather", table, ids)), self.real(ZERO))
        return self.op("Mul", rows, self.op("Unsqueeze", self.op("Gather", scale, ids), self.constant([-1])))

    def linear(self, x: str, name: str, bias: str | None = None, *, is_table: bool = False) -> str:
        """x · weightᵀ + bias.

        Args:
            x: values with features last.
            name: of the weight, [out, in].
            bias: name of the bias.
            is_table: the weight is stored for `rows_of_table` too, so it is read from there.
        """
        products = "float" if name in self.form.floats else self.form.products
        if products == "int8":
            y = self._int8_product(x, name)
        elif products == "4-bit":
            y = self._four_bit_product(x, name)
        elif is_table:
            y = self.op("MatMul", x, self.op("Transpose", name, perm=[1, 0]))
        else:
            y = self.op("MatMul", x, self._store(name, self._weights[name].T.astype(self.form.dtype)))
        return y if bias is None else self.op("Add", y, self._real_weight(bias))

    def _int8_product(self, x: str, name: str) -> str:
        """Each token is scaled to ±127 by its own largest value, so that no text's result depends on its neighbours'."""
        largest = self.op("ReduceMax", self.op("Abs", x), axes=[-1], keepdims=1)
        scale = self.op("Max", self.op("Mul", largest, self.real(1 / 127)), self.real(1e-7))
        levels = self.op("Add", self.op("Round", self.op("Div", x, scale)), self.real(ZERO))
        table, row_scale = self._int8(name)
        zero = self.constant(ZERO, np.uint8)
        turned = self.op("Transpose", table, perm=[1, 0])
        sums = self.to_real(self.op("MatMulInteger", self.cast(levels, np.uint8), turned, zero, zero))
        return self.op("Mul", self.op("Mul", sums, scale), row_scale)

    def _int8(self, name: str) -> tuple[str, str]:
        levels, scale = int8_rows(self._weights[name])
        stored = (levels.astype(np.int16) + ZERO).astype(np.uint8)
        return self._store(f"{name}.uint8", stored), self._store(f"{name}.scale", scale.astype(self.form.dtype))

    def _four_bit_product(self, x: str, name: str) -> str:
        packed, scale, block = four_bit(self._weights[name])
        out, into = self._weights[name].shape
        stored = self._store(f"{name}.q4", packed), self._store(f"{name}.q4.scale", scale.astype(self.form.dtype))
        return self.op("MatMulNBits", x, *stored, domain=MICROSOFT, K=into, N=out, bits=4, block_size=block)

    def _real_weight(self, name: str) -> str:
        return self._store(name, self._weights[name].astype(self.form.dtype))

    def _store(self, name: str, array: np.ndarray) -> str:
        if name not in self._stored:
            self._stored[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def save(
        self, file: Path, inputs: Mapping[str, Sequence[str]], outputs: Mapping[str, tuple[str, Sequence[str | int]]]
    ) -> None:
        """Writes the file.

        Args:
            file: where to.
            inputs: names of the axes of each int64 input.
            outputs: for each output its value, a float32, and its axes: a name, or a size.
        """
        named = {value: name for name, (value, _) in outputs.items()}
        for node in self._nodes:
            node.input[:] = [named.get(value, value) for value in node.input]
            node.output[:] = [named.get(value, value) for value in node.output]
        graph = helper.make_graph(
            self._nodes,
            "modernbert",
            [helper.make_tensor_value_info(name, TensorProto.INT64, list(axes)) for name, axes in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(axes)) for name, (_, axes) in outputs.items()],
            list(self._stored.values()),
        )
        opsets = [helper.make_opsetid("", self.opset)]
        if self.form.products == "4-bit":
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version, producer_name="modernbert")
        large = sum(len(tensor.raw_data) for tensor in self._stored.values()) > EXTERNAL
        onnx.save(model, file, save_as_external_data=large, location=f"{file.name}_data" if large else None)


class PlacedGraph(Graph):
    """A graph that holds no weights: it names places in the safetensors file beside it, and casts to float32 what it reads there.

    ONNX lets a tensor name a file, an offset and a length; what safetensors stores is just that. Weights that the file lacks are written.
    """

    opset, ir_version = 19, 9  # the first that know float8

    types: Mapping[str, str] = {"F32": "FLOAT", "F16": "FLOAT16", "BF16": "BFLOAT16", "F8_E4M3": "FLOAT8E4M3FN"}
    """What safetensors and ONNX call the same numbers."""

    def __init__(self, weights: Mapping[str, np.ndarray], file: str, places: Mapping[str, Place]) -> None:
        """Begins without operators.

        Args:
            weights: as for `Graph`.
            file: name of the safetensors file.
            places: of tensors in it, by the same names; of one of `types`.
        """
        super().__init__(weights, FORMS["fp32"])
        self._file, self._places = file, places
        self._read: dict[str, str] = {}

    def rows_of_table(self, ids: str, name: str) -> str:
        """Rows of an embedding table."""
        return self.op("Gather", self._real_weight(name), ids)

    def linear(self, x: str, name: str, bias: str | None = None, *, is_table: bool = False) -> str:
        """x · weightᵀ + bias, by the operator that reads weights as they are stored: turning all of `tiny` takes 0.08 s of loading."""
        out, into = self._weights[name].shape
        given = (self._real_weight(one) for one in (name, bias) if one is not None)
        y = self.op("Gemm", self.op("Reshape", x, self.constant([-1, into])), *given, transB=1)
        return self.op("Reshape", y, self.op("Concat", self.op("Shape", x, end=-1), self.constant([out]), axis=0))

    def _real_weight(self, name: str) -> str:
        if name not in self._places:
            return super()._real_weight(name)
        if name not in self._read:
            kind, shape, offset, length = self._places[name]
            tensor = TensorProto(name=name, dims=shape, data_type=getattr(TensorProto, self.types[kind]))
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", self._file), ("offset", str(offset)), ("length", str(length))):
                tensor.external_data.add(key=key, value=value)
            self._stored[name] = tensor
            self._read[name] = name if kind == "F32" else self.cast(name, np.float32)
        return self._read[name]

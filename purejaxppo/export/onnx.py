"""An exported policy as an ONNX graph, made from the same arrays and metadata.

No exporter traces our JAX functions: they follow JAX's releases late, and the policy is
a dozen kinds of nodes. B is any number of environments:

obs [B, D], carry/I [B, H]      float32 inputs; the carry of a first step is zeros
mask/HEAD [B, ...]              bool input of every head that has a mask
active/HEAD [B]                 bool input of every head whose state says so
action/HEAD [B, ...]            outputs, as of numpy_policy.py
is_active/HEAD [B]              outputs of the heads that are not always active
next_carry/I [B, H]             outputs: the carry for the next step

The model's metadata has the JSON of the .npz under `metadata`.
"""

import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from purejaxppo.export.numpy_policy import INVALID_LOGIT
from purejaxppo.export.writer import Exported
from purejaxppo.ppo import normalize

# Old enough for the ONNX Runtime of 2024, new enough for LayerNormalization.
_OPSET, _IR_VERSION = 18, 10
_NUM_CARRIES = {"none": 0, "gru": 1, "lstm": 2}


class Graph:
    """Nodes and constants under construction; `op` adds a node, and names its output.

    Attributes:
      inputs, outputs: the graph's own, in order.
    """

    def __init__(self) -> None:
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        self._constants[name] = numpy_helper.from_array(array, name)
        return name

    def op(self, kind: str, *inputs: str, num: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or a list of `num` of them."""
        names = [f"{kind}_{len(self._nodes)}_{i}" for i in range(num)]
        self._nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names if num > 1 else names[0]

    def input(self, name: str, kind: int, shape: list[int]) -> str:
        info = helper.make_tensor_value_info(name, kind, ["batch", *shape])
        self.inputs.append(info)
        return name

    def output(self, value: str, name: str, kind: int, shape: list[int]) -> None:
        """Make `value` an output of the graph."""
        self._nodes.append(helper.make_node("Cast", [value], [name], to=kind))
        info = helper.make_tensor_value_info(name, kind, ["batch", *shape])
        self.outputs.append(info)

    def model(self, metadata: dict[str, object]) -> onnx.ModelProto:
        constants = list(self._constants.values())
        graph = helper.make_graph(
            self._nodes, "policy", self.inputs, self.outputs, constants
        )
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(
            graph,
            opset_imports=[opset],
            ir_version=_IR_VERSION,
            producer_name="purejaxppo",
        )
        helper.set_model_props(model, {"metadata": json.dumps(metadata)})
        onnx.checker.check_model(model, full_check=True)
        return model


def to_onnx(exported: Exported) -> bytes:
    """Return the content of the .onnx file."""
    metadata: dict[str, Any] = exported.metadata
    graph = Graph()
    for name, array in exported.arrays.items():
        graph.constant(name, array)
    x = graph.input("obs", TensorProto.FLOAT, [metadata["obs_size"]])
    x = _features(graph, _normalized(graph, x, exported), metadata)
    actions: dict[str, str] = {}
    for head in metadata["heads"]:
        actions[head["name"]] = _action(graph, head, x, actions)
    _activity(graph, metadata["heads"], actions)
    return graph.model(metadata).SerializeToString()


def _dense(graph: Graph, name: str, x: str) -> str:
    return graph.op("Gemm", x, f"{name}/kernel", f"{name}/bias")


def _normalized(graph: Graph, x: str, exported: Exported) -> str:
    if "obs/mean" not in exported.arrays:
        return x
    limit = np.float32(normalize.MAX_NORMALIZED)
    scaled = graph.op("Div", graph.op("Sub", x, "obs/mean"), "obs/std")
    low, high = graph.constant("low", -limit), graph.constant("high", limit)
    return graph.op("Clip", scaled, low, high)


def _features(graph: Graph, x: str, metadata: dict[str, Any]) -> str:
    """Add hidden layers and core, with the carry from input to output."""
    for index in range(metadata["num_hidden"]):
        x = _dense(graph, f"hidden/{index}", x)
        if metadata["activation"] == "swish":
            x = graph.op("Mul", x, graph.op("Sigmoid", x))
        else:
            x = graph.op(metadata["activation"].capitalize(), x)
    core, size = metadata["core"], metadata["core_size"]
    if core == "none":
        return x
    carry = [
        graph.input(f"carry/{i}", TensorProto.FLOAT, [size])
        for i in range(_NUM_CARRIES[core])
    ]
    carry = (_lstm if core == "lstm" else _gru)(graph, x, *carry)
    for i, value in enumerate(carry):
        graph.output(value, f"next_carry/{i}", TensorProto.FLOAT, [size])
    norm, epsilon = ("core/norm/scale", "core/norm/bias"), metadata["norm_epsilon"]
    return graph.op("LayerNormalization", carry[-1], *norm, axis=-1, epsilon=epsilon)


def _gates(graph: Graph, num: int, x: str, hidden: str) -> tuple[list[str], list[str]]:
    """Return what the gates get from `x` and from the hidden state."""
    from_x, from_hidden = (
        graph.op(
            "Split", _dense(graph, f"core/{n}", v), num=num, axis=-1, num_outputs=num
        )
        for n, v in (("input", x), ("hidden", hidden))
    )
    return from_x, from_hidden


def _lstm(graph: Graph, x: str, cell: str, hidden: str) -> list[str]:
    pairs = zip(*_gates(graph, 4, x, hidden), strict=True)
    i, f, g, o = (graph.op("Add", a, b) for a, b in pairs)
    kept = graph.op("Mul", graph.op("Sigmoid", f), cell)
    new = graph.op("Mul", graph.op("Sigmoid", i), graph.op("Tanh", g))
    cell = graph.op("Add", kept, new)
    return [cell, graph.op("Mul", graph.op("Sigmoid", o), graph.op("Tanh", cell))]


def _gru(graph: Graph, x: str, hidden: str) -> list[str]:
    (ir, iz, new), (hr, hz, kept) = _gates(graph, 3, x, hidden)
    r, z = (graph.op("Sigmoid", graph.op("Add", a, b)) for a, b in ((ir, hr), (iz, hz)))
    new = graph.op("Tanh", graph.op("Add", new, graph.op("Mul", r, kept)))
    # (1 - z) new + z hidden
    change = graph.op("Mul", z, graph.op("Sub", hidden, new))
    return [graph.op("Add", new, change)]


def _action(graph: Graph, head: dict[str, Any], x: str, actions: dict[str, str]) -> str:
    """Add a head's output layer and its mode; `actions` are those of heads before."""
    name = f"action/{head['name']}"
    out = _dense(graph, f"heads/{head['name']}", x)
    if head["kind"] == "box":
        out = graph.op("Tanh", out) if head["squash"] == "tanh" else out
        low = graph.constant("least", np.float32(-1.0))
        out = graph.op("Clip", out, low, graph.constant("most", np.float32(1.0)))
        graph.output(out, name, TensorProto.FLOAT, [head["size"]])
        return name
    if head["mask"] is not None:
        invalid = graph.constant("invalid", INVALID_LOGIT)
        out = graph.op("Where", _mask(graph, head, actions), out, invalid)
    if head["kind"] == "discrete":
        best = graph.op("ArgMax", out, axis=-1, keepdims=0)
        graph.output(best, name, TensorProto.INT32, [])
    else:
        k = graph.constant(f"k/{head['name']}", np.array([head["k"]]))
        _, best = graph.op("TopK", out, k, num=2, axis=-1)
        graph.output(best, name, TensorProto.INT32, [head["k"]])
    return name


def _any(graph: Graph, x: str, keepdims: int) -> str:
    """Return whether any of the last axis is True."""
    axis = graph.constant("last_axis", np.array([-1]))
    numbers = graph.op("Cast", x, to=TensorProto.INT32)
    most = graph.op("ReduceMax", numbers, axis, keepdims=keepdims)
    return graph.op("Cast", most, to=TensorProto.BOOL)


def _column(graph: Graph, x: str) -> str:
    return graph.op("Unsqueeze", x, graph.constant("last_axis", np.array([-1])))


def _mask(graph: Graph, head: dict[str, Any], actions: dict[str, str]) -> str:
    """Return the head's mask [B, n]; one that allows nothing allows all."""
    mask = graph.input(f"mask/{head['name']}", TensorProto.BOOL, head["mask"])
    if len(head["mask"]) == 2:  # a row for each choice of the parent
        row = graph.op("Cast", actions[head["parent"]], to=TensorProto.INT64)
        mask = graph.op("GatherND", mask, _column(graph, row), batch_dims=1)
    return graph.op("Or", mask, graph.op("Not", _any(graph, mask, keepdims=1)))


def _activity(
    graph: Graph, heads: list[dict[str, Any]], actions: dict[str, str]
) -> None:
    """Add which heads are active, of those that are not always."""
    known: dict[str, str] = {}
    for head in heads:
        name, terms = head["name"], []
        if head["active"]:
            terms.append(graph.input(f"active/{name}", TensorProto.BOOL, []))
        if head.get("parent") in known:
            terms.append(known[head["parent"]])
        if head.get("active_when") is not None:
            choices = np.array(head["active_when"], np.int32)
            when = graph.constant(f"active_when/{name}", choices)
            same = graph.op("Equal", _column(graph, actions[head["parent"]]), when)
            terms.append(_any(graph, same, keepdims=0))
        if terms:
            known[name] = terms[0]
            for term in terms[1:]:
                known[name] = graph.op("And", known[name], term)
            graph.output(known[name], f"is_active/{name}", TensorProto.BOOL, [])

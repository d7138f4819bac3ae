"""The course's model as a graph for ONNX Runtime, one pass over T new tokens after others.

Two of its operators are ONNX Runtime's own, described in its ContribOperators.md: one takes the sum
before a normalisation in (`SkipLayerNormalization`), the other writes keys and values into a buffer
and attends to all that it holds (`GroupQueryAttention`).
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from course_utils.going_further.speed.products import below
from course_utils.transformer import DecoderOnlyTransformer


def onnx_graph(model: DecoderOnlyTransformer) -> onnx.ModelProto:
    """The graph: ids (T,) and their positions (T,) in, the likeliest next id (1,) out.

    `seqlens_k` (1,) is the position of the last token, `total` () one more. The cache of layer i is
    `past_key_i`, `past_value_i` (1, H, S, d), and comes out as `present_...`.
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[TensorProto] = []
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["T"]),
        helper.make_tensor_value_info("positions", TensorProto.INT64, ["T"]),
        helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, [1]),
        helper.make_tensor_value_info("total", TensorProto.INT32, []),
    ]
    outputs = [helper.make_tensor_value_info("next", TensorProto.INT64, [1])]

    def constant(name: str, value: Tensor | np.ndarray) -> str:
        value = value.detach().numpy() if isinstance(value, Tensor) else value
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(kind: str, inputs: list[str], outputs: list[str], **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, outputs, name=outputs[0], **attributes))
        return outputs[0]

    def product(name: str, x: str, *linears: nn.Linear) -> str:
        given = [x, constant(f"{name}.weight", below([linear.weight for linear in linears]))]
        if linears[0].bias is not None:
            given.append(constant(f"{name}.bias", linears[0].bias))
        return node("Gemm", given, [name], transB=1)

    def add_and_norm(name: str, new: str, stream: str, norm: nn.LayerNorm) -> tuple[str, str]:
        """The normalised sum, and the sum, which is the new residual stream."""
        given = [new, stream, constant(f"{name}.weight", norm.weight)]
        given.append(constant(f"{name}.bias", norm.bias))
        found = [name, "", "", f"{name}.sum"]
        options = {"domain": "com.microsoft", "epsilon": norm.eps}
        return node("SkipLayerNormalization", given, found, **options), found[3]

    def cache(name: str) -> str:
        shape = [1, model.num_heads, model.max_seq_len, model.d_head]
        for place, at in ((inputs, f"past_{name}"), (outputs, f"present_{name}")):
            place.append(helper.make_tensor_value_info(at, TensorProto.FLOAT, shape))
        return name

    first, last = constant("first", np.array([0])), constant("last", np.array([-1]))
    tokens = constant("token_embedding", model.token_embedding.weight)
    positions = constant("pos_embedding", model.pos_embedding.weight)
    new = node("Gather", [tokens, "ids"], ["tokens"])
    stream = node("Gather", [positions, "positions"], ["places"])
    for i, layer in enumerate(model.layers):
        heads, block = layer.attention, layer.feed_forward
        normed, stream = add_and_norm(f"norm1_{i}", new, stream, layer.norm1)
        qkv = product(f"qkv_{i}", normed, heads.W_q, heads.W_k, heads.W_v)
        qkv = node("Unsqueeze", [qkv, first], [f"qkv_batch_{i}"])
        keys, values = cache(f"key_{i}"), cache(f"value_{i}")
        given = [qkv, "", "", f"past_{keys}", f"past_{values}", "seqlens_k", "total"]
        found = [f"mixed_batch_{i}", f"present_{keys}", f"present_{values}"]
        options = {"num_heads": model.num_heads, "kv_num_heads": model.num_heads}
        mixed = node("GroupQueryAttention", given, found, domain="com.microsoft", **options)
        mixed = node("Squeeze", [mixed, first], [f"mixed_{i}"])
        new = product(f"out_{i}", mixed, heads.W_o)
        normed, stream = add_and_norm(f"norm2_{i}", new, stream, layer.norm2)
        hidden = node("Relu", [product(f"up_{i}", normed, block.fc1)], [f"relu_{i}"])
        new = product(f"down_{i}", hidden, block.fc2)
    normed, _ = add_and_norm("norm", new, stream, model.norm)
    normed = node("Gather", [normed, last], ["normed_last"], axis=0)
    logits = product("logits", normed, model.output_projection)
    node("ArgMax", [logits], ["next"], axis=1, keepdims=0)
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)

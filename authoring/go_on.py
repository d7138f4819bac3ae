"""What a student who is stuck copies to go on: each exercise's answer, imported where it can be.

An exercise that is not listed here has no equal in `course_utils`; the worked cell itself is shown.
"""


def _from(room: str, *names: str) -> str:
    return f"from course_utils.{room} import {', '.join(names)}"


GO_ON = {
    "softmax": _from("attention", "softmax"),
    "causal_mask": _from("attention", "causal_mask"),
    "attention": _from("attention", "attention", "attention_weights"),
    "multi_head": _from("attention", "MultiHeadAttention"),
    "feed_forward": _from("transformer", "FeedForward"),
    "decoder_layer": _from("transformer", "DecoderLayer"),
    "model": _from("transformer", "DecoderOnlyTransformer"),
    "keep_top_k": _from("generation", "keep_top_k"),
    "keep_top_p": _from("generation", "keep_top_p"),
    "next_token": _from("generation", "next_token"),
    "growing_cache": _from("kv_cache", "GrowingCache"),
    "cached_attention": _from("attention", "MultiHeadAttention"),
    "cached_model": _from("transformer", "DecoderOnlyTransformer"),
    "decode_loop": _from("generation", "decode_loop"),
    "preallocated_cache": _from("kv_cache", "PreallocatedCache"),
    "operations": _from("benchmark", "operations"),
}

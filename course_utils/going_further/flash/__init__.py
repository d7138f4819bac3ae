"""FlashAttention (chapter 08)."""

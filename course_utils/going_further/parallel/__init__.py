"""Many processes (chapter 11)."""

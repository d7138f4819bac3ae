"""Smaller caches (chapter 09)."""

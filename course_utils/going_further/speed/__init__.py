"""How fast can it go? (chapter 07)."""

"""Robot arms: their geometry, and what may be asked of them."""

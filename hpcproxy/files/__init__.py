"""Which files go where, their bytes, and how they come there."""

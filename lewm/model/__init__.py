"""Everything with learnable weights."""

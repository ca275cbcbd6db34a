"""Everything that returns a scalar to minimise."""

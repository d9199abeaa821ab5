"""Room protocols."""

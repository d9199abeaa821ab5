"""Room protocols/openai."""

"""Room api/openai."""

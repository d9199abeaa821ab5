"""Loads models, and knows what is particular to each: tokens, prompts, families. Runs in workers only."""

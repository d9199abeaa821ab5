"""Text in, events out: what a model's raw text means. Pure functions and small machines, no tokenizer, no model."""

from mlx_manager.parsing.stop import StopMatcher

__all__ = ["StopMatcher"]

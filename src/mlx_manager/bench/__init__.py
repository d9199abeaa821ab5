"""Measure any OpenAI-compatible server over HTTP: workloads in, figures out. Imports nothing of ours."""

from mlx_manager.bench.client import ServerRefused, StreamRecord, Target
from mlx_manager.bench.figures import Figures, Interruption
from mlx_manager.bench.prose import Prose
from mlx_manager.bench.runner import Measurement, first_model, measure, tokens_per_word
from mlx_manager.bench.workloads import WORKLOADS, Scale, Workload

__all__ = [
    "WORKLOADS",
    "Figures",
    "Interruption",
    "Measurement",
    "Prose",
    "Scale",
    "ServerRefused",
    "StreamRecord",
    "Target",
    "Workload",
    "first_model",
    "measure",
    "tokens_per_word",
]

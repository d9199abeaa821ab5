"""The process that converts a GGUF file: `python -m mlx_manager.worker.convert SOURCE TARGET`, and `--help`.

Prints a line of JSON for each stage, and one with the error and exit code 1 when it fails.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import mlx.core as mx
import msgspec

from mlx_manager.errors import MlxManagerError
from mlx_manager.models.gguf import import_gguf


def main() -> int:
    """Convert what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mlx_manager.worker.convert")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, help="the model folder to write; its name is the model's")
    parser.add_argument("--force", action="store_true", help="replace an existing target")
    parser.add_argument("--chat-template", type=Path, help="a file with the template to take in place of its own")
    arguments = parser.parse_args()
    # Moving rows about is no work for a GPU, which may be busy serving.
    mx.set_default_device(mx.cpu)
    try:
        template = arguments.chat_template.read_text(encoding="utf-8") if arguments.chat_template else ""
        import_gguf(
            arguments.source, arguments.target, force=arguments.force, report=_print_stage, chat_template=template
        )
    except MlxManagerError as error:
        _print({"error": error.as_info()})
        return 1
    except (OSError, RuntimeError, UnicodeDecodeError) as error:  # the disk's and MLX's own
        _print({"error": MlxManagerError(f"{arguments.source} could not be converted: {error}").as_info()})
        return 1
    return 0


def _print_stage(stage: str, fraction: float) -> None:
    _print({"stage": stage, "fraction": fraction})


def _print(line: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

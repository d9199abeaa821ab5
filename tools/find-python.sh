#!/bin/sh
# Prints a Python that can make the virtual environment: 3.11 or newer, with venv and ensurepip. `PYTHON=...` chooses one.
set -u

newest_seen=""
without_ensurepip=""
for candidate in ${PYTHON:-python3.12 python3.13 python3.11 python3.14 python3}; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    newest_seen="$newest_seen $candidate=$version"
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        command -v "$candidate"
        exit 0
    fi
    without_ensurepip="$candidate"
done

if [ -n "$without_ensurepip" ]; then
    version=$("$without_ensurepip" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$without_ensurepip cannot make virtual environments: its ensurepip module is missing." >&2
    echo "On Debian or Ubuntu: sudo apt install python$version-venv" >&2
else
    echo "MLX Manager needs Python 3.11 or newer; found:${newest_seen:- none}." >&2
    echo "macOS: brew install python@3.12    Debian or Ubuntu: sudo apt install python3 python3-venv" >&2
    echo "If it is installed under another name: make PYTHON=/path/to/python3.12 ..." >&2
fi
exit 1

"""The generated parts of docs/ say what the code says."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.docs import PARTS, REPOSITORY, Part


def test_the_check_finds_nothing_to_write() -> None:
    done = subprocess.run(
        [sys.executable, "tools/docs.py", "--check"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_part_that_was_edited_by_hand_is_written_anew(part: Part) -> None:
    page = part.path.read_text(encoding="utf-8")
    spoilt = page.replace(f"<!-- end: {part.name} -->", f"a stray line\n<!-- end: {part.name} -->")
    assert spoilt != page
    assert part.filled(spoilt) == page


def test_a_page_without_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"docs/cli\.md has no part"):
        PARTS[0].filled("# nothing here\n")


def test_every_page_with_markers_is_written() -> None:
    pages = {path.name for path in Path(REPOSITORY / "docs").rglob("*.md") if "<!-- generated:" in path.read_text()}
    # The table of models takes minutes to make: tools/model_table.py writes it, and `make check` leaves it alone.
    assert pages == {part.page for part in PARTS} | {"models.md"}

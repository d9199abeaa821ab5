"""The lock files install the same on every machine: everything pinned by hash, no address of an index."""

import re
import tomllib

import pytest

from tools.docs import REPOSITORY

LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-starter.txt")


def pinned(name: str) -> dict[str, str]:
    """Package to the text of its entry."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)
    return {entry.split("==")[0]: entry for entry in entries if "==" in entry}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_by_hash(name: str) -> None:
    entries = pinned(name)
    assert entries
    assert [package for package, entry in entries.items() if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", LOCKS)
def test_no_address_is_in_a_lock(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^--(index|extra-index|find-links)", text, re.MULTILINE)


def test_declared_dependencies_are_locked() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    runtime = {re.split(r"[\[><=; ]", entry)[0] for entry in project["project"]["dependencies"]}
    groups = {re.split(r"[\[><=; ]", entry)[0] for group in project["dependency-groups"].values() for entry in group}
    assert runtime - set(pinned("requirements.lock")) == set()
    assert (runtime | groups) - set(pinned("requirements-dev.lock")) == set()


def test_the_two_locks_agree() -> None:
    versions = [
        {package: entry.split(" ")[0] for package, entry in pinned(name).items()}
        for name in ("requirements.lock", "requirements-dev.lock")
    ]
    assert {package: versions[1].get(package) for package in versions[0]} == versions[0]


def test_torch_is_not_needed() -> None:
    assert "torch" not in pinned("requirements-dev.lock")

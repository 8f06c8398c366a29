"""What the tests of several observers need."""

import pytest

from tests.observers.terminals import Terminal


@pytest.fixture
def terminals(monkeypatch):
    """Makes terminals by their width; they have colours."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal

"""Short waits, so that tests of retries are quick."""

import pytest

from gristmill.engines.endpoint import engine, preflight


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(preflight, "WAIT_S", 0.01)

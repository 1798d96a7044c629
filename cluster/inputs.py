"""Opens the parts of a run in workers, where their inputs must be what the driver has read."""

import os
from collections.abc import Mapping
from typing import Any

from gristmill.engines.needs import Needs
from gristmill.records.pins import active


def secrets_of(needs: Needs) -> dict[str, str]:
    """The secrets of a part by the name of their variable, from the environment of this process.

    They travel with the call that opens the engine. Ray lists the environment of a job or an actor on its dashboard and
    in its logs, but not the arguments of calls.
    """
    return {name: os.environ[name] for name in needs.variables if name in os.environ}


def open_unchanged(part: Any, secrets: Mapping[str, str] | None = None) -> None:
    """Open a generator, a stage or a worker. Raises UserError when an input has changed since the run began.

    `secrets`: see `secrets_of`. They become part of the environment of this process.
    """
    os.environ.update(secrets or {})
    with active(getattr(part, "pins", None)):
        part.open()

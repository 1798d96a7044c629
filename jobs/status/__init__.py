"""gristmill status: how far a run is."""

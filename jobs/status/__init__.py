"""gristmill status: shows how far a run is."""

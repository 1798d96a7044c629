"""gristmill report: writes a page about a run."""

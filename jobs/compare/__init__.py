"""`gristmill compare`."""

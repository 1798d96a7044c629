"""Releases of mixtures: `gristmill pack MIX.toml`."""

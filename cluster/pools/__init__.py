"""Pools of engines: actors, their placement and their members."""

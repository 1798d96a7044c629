"""The dedup index: actors, claims, snapshots and rebuilds."""

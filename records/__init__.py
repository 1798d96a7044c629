"""What flows: schema, identity, lots, shards and the stores they lie in. Imports nothing above it."""

"""Rows and their storage: schema, identity, lots, shards, stores. Imports no other folder of the package."""

"""The output of a run: shards, manifest, events, the ledger of commits, the lease, and file formats."""

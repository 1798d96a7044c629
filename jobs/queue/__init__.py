"""The `queue` verb: the runs of a cluster."""

"""Room on a cluster, shared by runs."""

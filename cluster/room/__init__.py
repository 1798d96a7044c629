"""Room on a cluster: what nodes hold, how runs share it, and the queue of runs."""

"""What the process of a driver needs of Ray: a local one, its token, its interrupts, a watch of its head."""

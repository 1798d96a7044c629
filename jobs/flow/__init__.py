"""gristmill flow: a chain of verbs as one job."""

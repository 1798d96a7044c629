"""gristmill audit: re-reads an output and proves it."""

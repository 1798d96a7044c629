"""The lot loop: lots in flight, commits in lot order, quarantine."""

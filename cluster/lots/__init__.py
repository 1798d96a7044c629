"""The lot loop: lots in flight, claims and commits in lot order, recovery from losses."""

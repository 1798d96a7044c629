"""Tables as numbers and codes, and what tabular families share."""

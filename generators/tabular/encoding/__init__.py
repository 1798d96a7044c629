"""Encodings of tables as numbers and codes, and other code that tabular families share."""

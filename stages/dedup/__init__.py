"""Duplicates of rows already kept: signatures, indexes, and the contract that they share."""

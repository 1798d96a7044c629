"""Duplicates of kept rows: signatures, indexes and their common contract."""

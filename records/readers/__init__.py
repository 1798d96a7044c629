"""File formats and data sets: sources, tables, and packages with real data."""

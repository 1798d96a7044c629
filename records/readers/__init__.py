"""File formats and data sets: sources, tables, and the packages that carry real data."""

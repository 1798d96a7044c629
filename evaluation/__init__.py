"""Metrics: pure functions over tables, texts and arrays."""

"""Benchmarks, each beside its peer or its limit."""

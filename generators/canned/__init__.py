"""The canned generator: deterministic text on CPU for dry runs, tests and benchmarks."""

"""Closed forms for models that learn from models, each with its source and a Monte Carlo test.

Generation 1 is the first model, fitted to real rows. Generation k+1 learns from rows that model k made. Studies call
`registry.laws`; docs/collapse.md explains the laws.
"""

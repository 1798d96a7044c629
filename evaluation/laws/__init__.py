"""What is known exactly about models that learn from models: closed forms, each with its source and a Monte Carlo test.

Generation 1 is the first model, fitted to real rows; generation k+1 learns from rows that model k made. `registry.laws`
is what a study asks; docs/collapse.md tells the laws in words.
"""

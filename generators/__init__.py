"""Generators, which make rows: teachers and their text methods, fitted models, simulators, image pipelines."""

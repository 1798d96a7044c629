"""Measures of a generation and the definitions of model collapse."""

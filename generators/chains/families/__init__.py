"""Families of chains, from exact Gaussian chains to language models."""

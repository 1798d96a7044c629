"""Stages that admit a row by the rows kept before it: balance and novelty."""

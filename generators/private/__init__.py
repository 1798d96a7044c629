"""Differential privacy: the account of a budget, and DP-SGD."""

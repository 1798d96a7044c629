"""The contract of trainable models, their fit and their folder."""

"""Verifiers inside the chain loop: which rows of a model may be trained on."""

"""Verifiers inside the chain loop: they select the rows of a model that the next generation may train on."""

"""Sentence encoders in memory: texts become vectors in batches of fixed shape."""

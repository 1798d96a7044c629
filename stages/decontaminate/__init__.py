"""Rows that contain benchmark items: by word n-grams and by embeddings."""

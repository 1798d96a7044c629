"""gristmill produce: a recipe in, a corpus out."""

"""gristmill produce: makes a corpus from a recipe."""

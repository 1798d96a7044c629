"""Recipes: TOML to checked specs, and the catalogue of shipped recipes."""

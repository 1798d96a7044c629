"""Recipes: from TOML to compiled recipes, and the catalogue of the project's recipes."""

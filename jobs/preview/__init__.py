"""`gristmill preview`: a few rows of a recipe with every stage's verdict, without an output."""

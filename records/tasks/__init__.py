"""Tasks with exact answers, one class a family, each with levels of difficulty."""

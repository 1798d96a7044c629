"""The verbs of the command line, and the recipes that they read."""

"""What is asked: recipes, the verbs and the command line."""

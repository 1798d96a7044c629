"""gristmill tune: measures settings of a recipe's engine on its own asks."""

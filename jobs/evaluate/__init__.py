"""gristmill evaluate: compares synthetic rows with real rows."""

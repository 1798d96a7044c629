"""gristmill evaluate: synthetic rows measured against real rows."""

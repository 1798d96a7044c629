"""gristmill fit and gristmill audit-privacy."""

"""Real and synthetic rows in capped proportion: regimes, caps and counted draws."""

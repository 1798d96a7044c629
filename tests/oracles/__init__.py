"""Other implementations as oracles, in an environment of their own: never a dependency (their licences differ)."""

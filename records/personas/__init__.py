"""Personas: attributes that fit together, drawn from published marginals or from a table."""

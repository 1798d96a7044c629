"""Secrets in recipes, messages and addresses, and how they are masked."""

"""Filters on one row by itself: its finish, language, quality rules and personal data."""

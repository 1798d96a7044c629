"""Filters that judge a row by itself: how it ended, its language, quality rules, personal data."""

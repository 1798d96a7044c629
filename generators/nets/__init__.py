"""Torch modules. Import this folder inside functions only: torch takes seconds to load."""

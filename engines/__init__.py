"""Engines: language models behind one interface. Imports records only."""

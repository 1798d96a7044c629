"""Distances, attacks and audits: what synthetic rows reveal about real ones."""

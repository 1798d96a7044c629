"""Fits and units of studies on a cluster."""

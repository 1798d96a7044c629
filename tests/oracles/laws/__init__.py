"""Closed forms of model collapse that no study uses. Tests hold chains and the ledger against them."""

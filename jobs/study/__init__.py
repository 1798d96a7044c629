"""gristmill study: chains of generations over a grid of regimes."""

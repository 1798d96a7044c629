"""Numba kernels over Arrow buffers. Stages import them in `open()`, because numba takes a second to import."""

"""Numba kernels over Arrow buffers; imported only where a stage opens, because numba takes a second to import."""

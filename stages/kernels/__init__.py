"""Numba kernels over Arrow buffers. Stages import them in `open()`, because numba takes a second to import."""

from gristmill.stages.kernels.cache import register

register()

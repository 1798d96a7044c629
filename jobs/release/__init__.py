"""gristmill pack: releases of runs and of mixtures."""

"""Fits of models and units of studies as Ray tasks, and the engines that units share."""

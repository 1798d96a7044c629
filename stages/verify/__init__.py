"""Stages that judge one row by itself: how it finished, its form, its rules, its language."""

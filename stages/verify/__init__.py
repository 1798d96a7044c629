"""Stages that verify a row by itself: answers, programs, forms, constraints, copies of training data."""

"""Synthetic chest CT with labels. Not patients."""

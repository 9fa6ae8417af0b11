"""Experiments that consist of many runs."""

"""Measurements: ratios of things run side by side on one machine in one run. ``python -m bench`` prints them."""

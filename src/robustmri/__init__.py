"""Measure how easily a medical-image classifier is fooled, repair it, and report both."""

__version__ = "0.1.0"

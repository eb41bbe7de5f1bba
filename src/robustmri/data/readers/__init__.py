"""Scans as they are: one file a format."""

"""A classifier from anywhere: one file a format. Each gives a network that runs no foreign code."""

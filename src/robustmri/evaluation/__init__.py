"""E: what an attack did to each image, the numbers with intervals by patient, and checks on the
result itself.
"""

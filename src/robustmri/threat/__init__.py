"""S(x): what an attacker may change in an image, by how much, and where."""

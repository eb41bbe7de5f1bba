"""min: parameters that keep the worst loss small. Hardening is training with another objective."""

"""The leakage doctor: what is wrong with cohorts and their splits before anything is trained."""

"""D: who was scanned. Readers, cohorts, splits, leakage checks and the phantom."""

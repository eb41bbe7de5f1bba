"""robustmri side by side with torchattacks, foolbox, ART and secml-torch: `python -m benchmarks
--help`.
"""

"""The workbench: a local page on a folder of runs, cohorts and results. It reads what the verbs
wrote and starts them as processes; it computes nothing itself.
"""

"""One file a verb: each reads files, writes one artefact whole or not at all, and can be run again
or resumed.
"""

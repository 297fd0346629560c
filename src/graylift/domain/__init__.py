"""The nouns of Graylift: frozen values that every layer shares. Standard library only, no behaviour beyond arithmetic.

Names are the words of ARCHITECTURE.md. Sequences are tuples, changes go through `dataclasses.replace`,
None means absent and is never 0, and NaN never gets in here.
"""

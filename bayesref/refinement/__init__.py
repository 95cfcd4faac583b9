"""Refinement: atoms whose posterior follows from amplitudes, stereochemistry and each other."""

"""Stereochemical restraints: dictionaries, topology, log densities."""

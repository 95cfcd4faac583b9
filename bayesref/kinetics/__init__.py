"""Reaction schemes and the occupancies that follow from them."""

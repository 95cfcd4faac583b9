"""Generative models, one page each, to run as they are or to copy and edit."""

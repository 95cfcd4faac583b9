"""Scales: from what is known of a spot to log K."""

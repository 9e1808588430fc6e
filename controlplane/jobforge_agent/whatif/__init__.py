"""Recorded work under another routing policy, in simulated time."""

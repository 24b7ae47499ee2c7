"""Writes a config for a user's data: `perceptune init`."""

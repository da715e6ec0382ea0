"""Peers: other ways to compute each operator, written from their definitions."""

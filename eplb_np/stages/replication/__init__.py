"""Replica allocation: how many replicas each logical expert gets."""

"""Splitting each batch over the replicas of a plan, and placing replicas for that."""

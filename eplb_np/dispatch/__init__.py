"""Splitting each batch over the replicas of a plan, and placing replicas for that."""

from eplb_np.dispatch.quotas import assign, make_quotas
from eplb_np.dispatch.splitter import Splitter, split_load

__all__ = ["Splitter", "assign", "make_quotas", "split_load"]

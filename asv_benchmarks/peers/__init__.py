"""The planners that eplb_np is compared with, in our own implementations."""

"""The field that eplb_np is measured against, in renderings of our own."""

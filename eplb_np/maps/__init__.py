"""The maps that a plan is made of: what they must be, and how they follow from each other."""

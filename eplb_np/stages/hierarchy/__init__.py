"""The whole plan of a layer: groups to nodes, replicas within nodes, replicas to GPUs."""

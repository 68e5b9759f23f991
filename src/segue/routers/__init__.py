"""What splits the traffic: one adapter of the `Router` port per kind of proxy."""
